#!/usr/bin/env bash
# Print the objects of a kustomization: `tools/kustomize.sh deploy/overlays/single`. Uses kubectl
# where there is one, else installs kustomize.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for kubectl in "$project/.tools/bin/kubectl" "$(command -v kubectl || true)"; do
    if [ -n "$kubectl" ] && [ -x "$kubectl" ]; then
        exec "$kubectl" kustomize "$1"
    fi
done
kustomize=$("$project/tools/deploy-tool.sh" kustomize)
exec "$kustomize" build "$1"
