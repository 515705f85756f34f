#!/usr/bin/env bash
# Check licenses and sources of dependencies with cargo-deny, and find unused ones with
# cargo-machete. In CI a missing tool is installed into .tools/; elsewhere it is skipped.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
export PATH=$project/.tools/bin:$PATH

# Whether cargo has the subcommand, after installing it if this is CI.
has() {
    cargo "$1" --version >/dev/null 2>&1 && return
    if [ "${CI:-}" = true ]; then
        # Within a condition `set -e` has no effect.
        cargo install --quiet --locked --root .tools "cargo-$1@$2" || {
            echo "check-dependencies: cannot install cargo-$1" >&2
            exit 1
        }
        return 0
    fi
    echo "skipped: cargo-$1 is not installed (cargo install --locked cargo-$1)"
    return 1
}

if has deny 0.20.2; then
    cargo deny --locked check bans licenses sources
    # The advisories come from a repository that not every network reaches.
    if ! advisories=$(cargo deny --locked check advisories 2>&1); then
        if grep -qi 'failed to fetch advisory database' <<<"$advisories"; then
            echo "skipped: the advisory database cannot be fetched from here"
        else
            echo "$advisories"
            exit 1
        fi
    fi
fi
if has machete 0.9.2; then
    cargo machete
fi
