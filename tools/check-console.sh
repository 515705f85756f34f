#!/usr/bin/env bash
# Compare console/dist with what its sources build. With --write, write it.
#
# Exit status 3: this machine has no Node.js with npm.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../console"
command -v npm >/dev/null || {
    echo "check-console: npm not found: install Node.js 20 or later" >&2
    exit 3
}
# The lock file must not name where this machine gets packages from.
if grep -q '"resolved"' package-lock.json; then
    echo "check-console: package-lock.json has addresses; remove them: see console/.npmrc" >&2
    exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --silent
if [ "${1:-}" = --write ]; then
    exec npm run --silent build
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
CONSOLE_OUT=$built npm run --silent build
diff -r "$built" dist >/dev/null || {
    echo "check-console: console/dist differs from its sources; run make console" >&2
    exit 1
}
