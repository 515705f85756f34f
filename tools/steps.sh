#!/usr/bin/env bash
# Run targets of the Makefile one after the other, and print the seconds of each.
set -euo pipefail

for target in "$@"; do
    printf '\n== %s\n' "$target"
    SECONDS=0
    "${MAKE:-make}" --no-print-directory "$target"
    printf '== %s passed in %s s\n' "$target" "$SECONDS"
done
