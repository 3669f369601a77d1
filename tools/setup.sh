#!/usr/bin/env bash
# Makes sure that this machine has what the Makefile needs: Python >= 3.11 with venv, Rust, a C linker, redis-server.
# Debian packages that are missing are installed (as root, or by `sudo -n`); otherwise the command to type is printed.
# Nothing is changed where all is there, and no Redis service is left running or enabled.
# Arguments name further commands that are needed: tclsh, dpkg-source.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Version $1 is at least version $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

packages=()

command -v "$PYTHON" >/dev/null || die "there is no '$PYTHON': install Python 3.11 or newer, or set PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "'$PYTHON' is $("$PYTHON" --version 2>&1): Python 3.11 or newer is needed; set PYTHON=/path/to/python3"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    packages+=("python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")

needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
command -v cargo >/dev/null && command -v rustc >/dev/null ||
    die "there is no 'cargo' on the PATH: install Rust $needed or newer (https://rustup.rs), then open a new shell"
found=$(rustc --version | cut -d ' ' -f 2)
at_least "$found" "$needed" || die "rustc is $found: Rust $needed or newer is needed ('rustup update stable')"
command -v cc >/dev/null || packages+=(gcc libc6-dev)

command -v redis-server >/dev/null || packages+=(redis-server)

for wanted in "$@"; do
    command -v "$wanted" >/dev/null && continue
    case $wanted in
    tclsh) packages+=(tcl) ;;
    dpkg-source) packages+=(dpkg-dev) ;;
    *) die "no package is known for '$wanted'" ;;
    esac
done

[ ${#packages[@]} -gt 0 ] || exit 0

command="apt-get install -y --no-install-recommends ${packages[*]}"
command -v apt-get >/dev/null || die "missing: ${packages[*]} (the names are Debian's); install them and try again"
if [ "$(id -u)" = 0 ]; then
    root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    root=(sudo -n)
else
    die "missing: ${packages[*]}. Not root, and sudo asks for a password; please type" \
        "    sudo apt-get update && sudo env RUNLEVEL=1 $command"
fi

# Debian starts a package's service when it installs it. A policy-rc.d that answers 101 forbids that; where there is one
# already, it belongs to the operator and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
fi

echo "setup: installing ${packages[*]}"
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086 # the words of the command are meant to be split
"${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $command

case " ${packages[*]} " in
*" redis-server "*)
    # Nor shall it start at the next boot.
    if [ -d /run/systemd/system ]; then
        "${root[@]}" systemctl disable --now redis-server >/dev/null 2>&1 || true
    fi
    command -v redis-server >/dev/null || die "redis-server was installed but is not on the PATH"
    ;;
esac
