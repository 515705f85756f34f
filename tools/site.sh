#!/usr/bin/env bash
# Build the site of the docs into target/site (`make site`). A link to a page, file or heading that
# does not exist is an error, and so is a page that the navigation does not name.
#
# Exit status 3: this machine has no Python with pip.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$project/tools/pip-tool.sh" site)
cd "$project"
folder=target/site-build

# Decisions and runbooks have lists of their own.
for page in $(git ls-files -- 'docs/*.md' ':!docs/decisions' ':!docs/runbooks'); do
    grep -qF "\"$page\"" tools/site/zensical.toml || {
        echo "tools/site/zensical.toml: nav must name $page" >&2
        exit 1
    }
done

rm -rf "$folder" target/site
mkdir -p "$folder/pages"
cp tools/site/zensical.toml "$folder"

# The pages, and what they link to. Files that git does not track are no part of the site.
git ls-files -z -- '*.md' docs deploy examples proto ':!.github' ':!tests' |
    tar --create --null --files-from=- | tar --extract --directory="$folder/pages"
PYTHONPATH=.tools/site "$python" -m zensical build --strict --config-file "$folder/zensical.toml"
mv "$folder/site" target/site
