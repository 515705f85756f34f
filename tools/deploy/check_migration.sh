#!/usr/bin/env bash
# Check what docs/migrate.md uses: the component keep-crds removes two CRDs from Flux's manifests
# and nothing else, and the components shadow and tee set what they say in both overlays.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$project"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "check-migration: $*" >&2
    exit 1
}

relative() {
    realpath --relative-to="$folder" "deploy/$1"
}

crd() {
    cat <<END
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: $1.toolkit.fluxcd.io, labels: {app.kubernetes.io/part-of: flux}}
END
}

for name in alerts.notification providers.notification receivers.notification \
    kustomizations.kustomize; do
    crd "$name"
done >"$folder/gotk-components.yaml"
cat >"$folder/kustomization.yaml" <<END
resources: [gotk-components.yaml]
components: [$(relative components/keep-crds)]
END
left=$(tools/kustomize.sh "$folder" | sed -n 's/^  name: //p' | sort | paste -sd' ')
kept="kustomizations.kustomize.toolkit.fluxcd.io receivers.notification.toolkit.fluxcd.io"
[ "$left" = "$kept" ] ||
    fail "keep-crds leaves: $left"

for overlay in single:1:1 standard:2:1; do
    IFS=: read -r name shadows tees <<<"$overlay"
    cat >"$folder/kustomization.yaml" <<END
namespace: tidings
resources: [$(relative "overlays/$name")]
components: [$(relative components/shadow), $(relative components/tee)]
END
    tools/kustomize.sh "$folder" >"$folder/rendered.yaml"
    [ "$(grep -c 'name: TIDINGS_SHADOW' "$folder/rendered.yaml")" = "$shadows" ] ||
        fail "$name: expected shadow mode in $shadows workloads"
    [ "$(grep -c 'name: TIDINGS_INGEST__TEE__URL' "$folder/rendered.yaml")" = "$tees" ] ||
        fail "$name: expected the tee in $tees workload"
done

grep -q 'component, operator: In, values: \[ingest, single\]' deploy/migrate/network-policy.yaml ||
    fail "the network policy of deploy/migrate must select the pods that receive events only"

service=$(sed -n 's/^  name: //p' deploy/migrate/service.yaml)
grep -q "http://$service.flux-system.svc.cluster.local./" deploy/components/tee/kustomization.yaml ||
    fail "the tee must post to the Service $service of deploy/migrate"
grep -q "http://$service.flux-system.svc.cluster.local./" docs/migrate.md ||
    fail "docs/migrate.md must name the Service $service"
