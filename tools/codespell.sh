#!/usr/bin/env bash
# Check the spelling of every tracked text file. Installs codespell into .tools/ once (version and
# hash: tools/requirements-codespell.txt). Words that are right all the same are listed in
# tools/codespell-ignore.txt.
#
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$project/tools/pip-tool.sh" codespell)
cd "$project"
git ls-files -z -- . ':!*.lock' ':!*.sum' ':!*.json' ':!*requirements*.txt' ':!LICENSE' \
    ':!tools/phrases.txt' ':!CHANGELOG.md' ':!tests/fuzz/corpus' ':!tests/fixtures' \
    ':!console/dist' |
    PYTHONPATH=.tools/codespell xargs -0 "$python" -m codespell_lib \
        --builtin clear,rare,en-GB_to_en-US --ignore-words tools/codespell-ignore.txt
