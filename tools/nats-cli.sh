#!/usr/bin/env bash
# Print the path of the `nats` command: the one on PATH, if it has the command `nats backup`, else
# one that is built into .tools/ with Go (once, about a minute).
#
# Exit status 3: it must be built, and this machine has no Go.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$project/.tools/bin
module=github.com/nats-io/natscli/nats@v0.5.0

# Earlier versions have `nats account backup` only.
is_usable() { "$1" backup account --help >/dev/null 2>&1; }

for found in "$(command -v nats || true)" "$bin/nats"; do
    if [ -n "$found" ] && [ -x "$found" ] && is_usable "$found"; then
        echo "$found"
        exit
    fi
done
command -v go >/dev/null || {
    echo "nats: install the NATS command line 0.5 or later, or Go to build it" >&2
    exit 3
}
mkdir -p "$bin"
echo "nats: building $module into .tools/ (once)" >&2
CGO_ENABLED=0 GOBIN=$bin go install "$module" >&2
is_usable "$bin/nats"
echo "$bin/nats"
