#!/usr/bin/env bash
# Print the folder for PYTHONPATH with the imports of the examples in Python: the packages of
# examples/requirements*.txt (with versions and hashes) and the types generated from proto/. They
# are installed into .tools/ once.
#
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$project/examples/requirements.txt
credentials=$project/examples/requirements-nkeys.txt
types=proto/tidings/v1/event.proto
folder=$project/.tools/examples

say() { printf 'python: %s\n' "$*" >&2; }

python=python3
if ! command -v python3 >/dev/null; then
    say "python3 not found"
    exit 3
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    # Some distributions omit pip but can create an environment that has it.
    if ! python3 -m venv "$project/.tools/venv" >/dev/null 2>&1; then
        say "python3 has neither pip nor venv"
        exit 3
    fi
    python=$project/.tools/venv/bin/python
fi

# Install again when a version, a type or Python changes.
cd "$project"
state=$({ cat "$requirements" "$credentials" "$types"; python3 --version; } | cksum)
if [ "$(cat "$folder/.state" 2>/dev/null || true)" != "$state" ]; then
    say "installing the packages of the example into .tools/ (once)"
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: --require-hashes --target "$folder" \
        --requirement "$requirements" >&2
    # nkeys is built by the setuptools of the first step, since it has no wheel.
    rm -rf "$folder/bin"
    PIP_ROOT_USER_ACTION=ignore PYTHONPATH=$folder "$python" -m pip install --quiet \
        --disable-pip-version-check --no-deps --only-binary :all: --no-binary nkeys \
        --no-build-isolation --require-hashes --target "$folder" \
        --requirement "$credentials" >&2
    PYTHONPATH=$folder "$python" -m grpc_tools.protoc -I proto --python_out "$folder" "$types"
    echo "$state" >"$folder/.state"
fi
echo "$folder"
