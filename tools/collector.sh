#!/usr/bin/env bash
# Print the path of an OpenTelemetry Collector that receives OTLP and writes files: COLLECTOR, else
# the one that is built once from tools/collector, into .tools/bin. It takes about ten minutes.
#
# Exit status 3: it must be built, and this machine has no Go.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
modules=$project/tools/collector
collector=${COLLECTOR:-$project/.tools/bin/otelcol}
wanted=$(awk '$1 ~ /collector\/otelcol$/ { print $2 }' "$modules/go.mod")

say() { printf 'collector: %s\n' "$*" >&2; }

is_wanted() {
    go version -m "$collector" 2>/dev/null | grep -q "collector/otelcol[[:space:]]$wanted"
}

if [ -n "${COLLECTOR:-}" ] || { [ -x "$collector" ] && is_wanted; }; then
    echo "$collector"
    exit
fi
command -v go >/dev/null || {
    say "install Go 1.26 or later, or set COLLECTOR"
    exit 3
}
say "building it into .tools/bin (once)"
mkdir -p "$project/.tools/bin"
(cd "$modules" && go build -trimpath -ldflags '-s -w' -o "$collector" .) >&2
echo "$collector"
