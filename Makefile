# Start here: `make help`. Every target installs what it needs; nothing is built twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# Where rustup puts cargo, for a shell that was not opened anew.
export PATH := $(PATH):$(HOME)/.cargo/bin

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# Stamps: each is newer than all that its step read.
ENV_STAMP := $(VENV)/.stamp-env
CORE_STAMP := $(VENV)/.stamp-core
BYTECODE_STAMP := $(VENV)/.stamp-bytecode
BENCH_STAMP := $(VENV)/.stamp-bench

RUST_SOURCES := Cargo.toml Cargo.lock $(wildcard .cargo/config.toml) $(shell find rust/src -type f)
PYTHON_SOURCES := $(shell find python -name '*.py')

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing on this machine (redis-server, python3-venv)
	@PYTHON=$(PYTHON) tools/setup.sh

.PHONY: build
build: setup $(BYTECODE_STAMP) ## Make .venv from the lock and build the data plane into it

$(ENV_STAMP): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.lock
	touch $@

$(CORE_STAMP): $(ENV_STAMP) $(RUST_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin develop --release --quiet
	touch $@

# Written even where PYTHONDONTWRITEBYTECODE is set, so that the next start does not compile.
$(BYTECODE_STAMP): $(CORE_STAMP) $(PYTHON_SOURCES)
	$(BIN)/python -m compileall -q python $(VENV)/lib
	touch $@

.PHONY: demo
demo: build ## See it work: two Redis servers, two sidecars, killed under load. Mirrored routes: redisha demo --envoy
	$(BIN)/redisha demo

.PHONY: test
test: build ## Run all tests (Rust, then Python with real Redis servers); PYTEST="-k name" chooses
	cargo test --quiet
	$(BIN)/python -m pytest -q $(PYTEST)

.PHONY: chaos
chaos: build ## Break real servers under load in every way; CHAOS_ROUNDS=n seeds from CHAOS_SEED=n on. Prints how it was healed
	CHAOS=1 $(BIN)/python -m pytest -q tests/chaos $(PYTEST)

.PHONY: conformance
conformance: build ## Run Redis's own test suite through redisha; CONFORMANCE_UNITS="unit/multi", CONFORMANCE_MODES="pass" choose
	@PYTHON=$(PYTHON) tools/setup.sh tclsh dpkg-source
	PYTHONPATH=tests $(BIN)/python -m conformance

.PHONY: lint
lint: build ## Check formatting, lints, types, the boundary's stub and the import rules
	cargo fmt --check
	cargo test --quiet --test arch
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy python/redisha
	MYPYPATH=python $(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml redisha._core
	PYTHONPATH=python $(BIN)/lint-imports --no-cache

.PHONY: format
format: $(ENV_STAMP) ## Format all sources
	cargo fmt
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

.PHONY: wheel
wheel: setup $(ENV_STAMP) ## Build dist/redisha-*.whl
	rm -rf dist
	$(BIN)/maturin build --release --quiet --out dist
	ls -l dist

.PHONY: bench
bench: build $(BENCH_STAMP) ## Measure side by side with a bare Redis and with Envoy
	$(BIN)/python -m pytest -o addopts='--strict-markers --strict-config --import-mode=importlib' -o timeout=3600 \
		--benchmark-only bench $(PYTEST)

$(BENCH_STAMP): $(ENV_STAMP) bench.lock
	$(PIP) install -r bench.lock
	touch $@

.PHONY: fuzz
fuzz: ## Fuzz the scanners and effects; FUZZ_SECONDS=n per target. Without cargo-fuzz and nightly: mutate the corpus
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
		for target in request reply effect; do \
			cargo +nightly fuzz run --fuzz-dir rust/fuzz $$target -- -max_total_time=$${FUZZ_SECONDS:-60}; \
		done; \
	else \
		echo 'libFuzzer needs: rustup toolchain install nightly && cargo install cargo-fuzz. Until then, mutations:'; \
		MUTATIONS=$${MUTATIONS:-200000} cargo test --quiet --test corpus; \
	fi

.PHONY: lock
lock: ## Make requirements.lock again from pyproject.toml, with the newest versions
	PYTHON=$(PYTHON) tools/lock.sh

.PHONY: clean
clean: ## Remove all that was built, the environment included
	rm -rf target dist $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find python tests bench -name __pycache__ -prune -exec rm -rf {} +
	find python -name '*.so' -delete
