#!/usr/bin/env bash
# Try the console in Chromium: console/test/. Installs what it needs: packages of npm from a lock
# file, and Debian's chromium where apt-get may install it. With SCREENSHOTS=1 it writes the
# pictures of docs/console/.
#
# Exit status 3: this machine has no Node.js with npm, or no Chromium, and cannot install it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../console/test"
command -v npm >/dev/null || {
    echo "test-console: npm not found: install Node.js 20 or later" >&2
    exit 3
}
CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}
if [ -z "$CHROMIUM" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y chromium >/dev/null
    CHROMIUM=$(command -v chromium || true)
fi
[ -n "$CHROMIUM" ] || {
    echo "test-console: chromium not found: install it, or set CHROMIUM to its path" >&2
    exit 3
}
export CHROMIUM
if grep -q '"resolved"' package-lock.json; then
    echo "test-console: package-lock.json has addresses; remove them: see .npmrc" >&2
    exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --silent
npm test --silent
