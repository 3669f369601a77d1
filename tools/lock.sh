#!/usr/bin/env bash
# Resolves pyproject.toml's dependencies and its group `development` in an empty environment and writes every version found to
# requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"

"$scratch/venv/bin/python" - >"$scratch/wanted" <<'PY'
import pathlib
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
print(*project["project"]["dependencies"], *project["dependency-groups"]["development"], sep="\n")
PY
"$scratch/venv/bin/python" -m pip --disable-pip-version-check -q install -r "$scratch/wanted"
{
    sed -n '/^#/!q;p' requirements.lock
    "$scratch/venv/bin/python" -m pip --disable-pip-version-check freeze
} >"$scratch/lock"
mv "$scratch/lock" requirements.lock
