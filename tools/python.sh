#!/usr/bin/env bash
# Prints the folder for PYTHONPATH with what examples/tap.py imports: the packages of examples/requirements.txt (versions
# and hashes are pinned there) and the types generated from proto/. Installed once, into .tools/.
#
# Exit status 3: there is no Python with pip, so the example can't be run on this machine.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$project/examples/requirements.txt
types=proto/tidings/v1/event.proto
folder=$project/.tools/examples

say() { printf 'python: %s\n' "$*" >&2; }

python=python3
if ! command -v python3 >/dev/null; then
    say "there is no python3"
    exit 3
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    # Some distributions leave pip out but can make an environment that has it.
    if ! python3 -m venv "$project/.tools/venv" >/dev/null 2>&1; then
        say "python3 has neither pip nor venv"
        exit 3
    fi
    python=$project/.tools/venv/bin/python
fi

# Installed again whenever a version, a type or Python changes.
cd "$project"
state=$({ cat "$requirements" "$types"; python3 --version; } | cksum)
if [ "$(cat "$folder/.state" 2>/dev/null || true)" != "$state" ]; then
    say "installing the packages of the example into .tools/ (once)"
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --target "$folder" --requirement "$requirements" >&2
    PYTHONPATH=$folder "$python" -m grpc_tools.protoc -I proto --python_out "$folder" "$types"
    echo "$state" >"$folder/.state"
fi
echo "$folder"
