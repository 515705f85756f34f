#!/usr/bin/env bash
# Check that proto/ only adds to the last released messages, proto/released.json. Installs buf into
# .tools/ once (version and hashes: tools/requirements-buf.txt). Works without network afterwards.
#
# `tools/proto-breaking.sh --release` writes proto/released.json; run it for each release.
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$project/.tools/buf
released=proto/released.json
python=$("$project/tools/pip-tool.sh" buf)
cd "$project"
if [ "${1:-}" = --release ]; then
    "$folder/bin/buf" build proto --exclude-source-info --output -#format=json |
        "$python" -m json.tool --indent 1 >"$released.new"
    mv "$released.new" "$released"
    exit
fi
"$folder/bin/buf" breaking proto --against "$released"
