#!/usr/bin/env bash
# Install the packages of tools/requirements-NAME.txt (versions and hashes) into .tools/NAME once,
# and print the Python that runs them: `python=$(tools/pip-tool.sh NAME)`.
#
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

name=$1
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$project/.tools/$name
requirements=$project/tools/requirements-$name.txt

python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    # Some distributions omit pip but can create an environment that has it.
    python3 -m venv "$project/.tools/venv" >/dev/null 2>&1 || {
        echo "$name: python3 with pip or venv is needed" >&2
        exit 3
    }
    python=$project/.tools/venv/bin/python
fi
state=$(cksum <"$requirements")
if [ "$(cat "$folder/.state" 2>/dev/null || true)" != "$state" ]; then
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: --require-hashes --target "$folder" \
        --requirement "$requirements" >&2
    echo "$state" >"$folder/.state"
fi
echo "$python"
