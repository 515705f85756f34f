#!/usr/bin/env bash
# Check the spelling of every tracked text file. Installs codespell into .tools/ once (version and
# hash: tools/requirements-codespell.txt). Words that are right all the same are listed in
# tools/codespell-ignore.txt.
#
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$project/.tools/codespell
requirements=$project/tools/requirements-codespell.txt

python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$project/.tools/venv" >/dev/null 2>&1 || {
        echo "codespell: python3 with pip or venv is needed" >&2
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
git ls-files -z -- . ':!*.lock' ':!*.sum' ':!*.json' ':!*requirements*.txt' ':!LICENSE' \
    ':!tools/phrases.txt' ':!CHANGELOG.md' |
    PYTHONPATH=$folder xargs -0 "$python" -m codespell_lib \
        --builtin clear,rare,en-GB_to_en-US --ignore-words tools/codespell-ignore.txt
