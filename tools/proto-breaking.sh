#!/usr/bin/env bash
# Check that proto/ only adds to the last released messages, proto/released.json. Installs buf into
# .tools/ once (version and hashes: tools/requirements-buf.txt). Works without network afterwards.
#
# `tools/proto-breaking.sh --release` writes proto/released.json; run it for each release.
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$project/.tools/buf
requirements=$project/tools/requirements-buf.txt
released=proto/released.json

python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$project/.tools/venv" >/dev/null 2>&1 || {
        echo "proto-breaking: python3 with pip or venv is needed" >&2
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
cd "$project"
if [ "${1:-}" = --release ]; then
    "$folder/bin/buf" build proto --exclude-source-info --output -#format=json |
        "$python" -m json.tool --indent 1 >"$released"
    exit
fi
"$folder/bin/buf" breaking proto --against "$released"
