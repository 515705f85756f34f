#!/usr/bin/env bash
# Print the folder of kube-apiserver, kubectl and etcd: KUBERNETES_BIN, else .tools/bin. Missing
# tools, and tools whose version differs from the go.mod in
# tools/{kubernetes,etcd,coredns,metrics-server}, are built first (once, about six minutes).
#
# With arguments: of these tools instead, such as `tools/kubernetes.sh kubelet coredns`.
#
# Exit status 3: they must be built, and this machine has no Go.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$project/.tools/bin

say() { printf 'kubernetes: %s\n' "$*" >&2; }

# Print the version of a module that a go.mod requires, such as 1.34.4.
required() { grep -Eom1 "$2 v[0-9.]+" "$project/tools/$1/go.mod" | grep -Eo '[0-9.]+$'; }

# Print the version of an executable, or nothing if it cannot run.
version_of() {
    case $1 in
    kubectl) "$2/$1" version --client ;;
    coredns) "$2/$1" -version ;;
    *) "$2/$1" --version ;;
    esac 2>/dev/null | grep -Eom1 '[0-9]+\.[0-9]+\.[0-9]+' || true
}

kubernetes=$(required kubernetes k8s.io/kubernetes)
etcd=$(required etcd go.etcd.io/etcd/server/v3)
coredns=$(required coredns github.com/coredns/coredns)
metrics_server=$(required metrics-server sigs.k8s.io/metrics-server)
[ $# -gt 0 ] || set -- kube-apiserver kubectl etcd
declare -A wanted=()
for tool in "$@"; do
    case $tool in
    etcd) wanted[$tool]=$etcd ;;
    coredns) wanted[$tool]=$coredns ;;
    metrics-server) wanted[$tool]=$metrics_server ;;
    *) wanted[$tool]=$kubernetes ;;
    esac
done

# Print the tools that are missing in a folder or have another version.
missing_in() {
    local tool
    for tool in "${!wanted[@]}"; do
        [ "$(version_of "$tool" "$1")" = "${wanted[$tool]}" ] || echo "$tool"
    done
}

build() {
    local tool=$1 module=kubernetes package=./$1 flags="-s -w"
    case $tool in
    etcd | coredns) module=$tool package=. ;;
    metrics-server)
        # Without it, it reports v0.0.0 too.
        module=$tool package=.
        flags+=" -X k8s.io/client-go/pkg/version.gitVersion=v$metrics_server"
        ;;
    *)
        # As in the release build; without it they report v0.0.0.
        local number
        IFS=. read -r -a number <<<"$kubernetes"
        local base=k8s.io/component-base/version
        flags+=" -X $base.gitVersion=v$kubernetes"
        flags+=" -X $base.gitMajor=${number[0]} -X $base.gitMinor=${number[1]}"
        ;;
    esac
    say "building $tool ${wanted[$tool]} into .tools/ (once)"
    # Build, then move, so that an interrupted build leaves no incomplete executable.
    (cd "$project/tools/$module" &&
        go build -trimpath -ldflags "$flags" -o "$bin/.$tool.unfinished" "$package") >&2
    mv -f "$bin/.$tool.unfinished" "$bin/$tool"
}

if [ -n "${KUBERNETES_BIN:-}" ]; then
    missing=$(missing_in "$KUBERNETES_BIN")
    if [ -n "$missing" ]; then
        say "KUBERNETES_BIN=$KUBERNETES_BIN lacks tools of Kubernetes $kubernetes, etcd $etcd,"
        say "CoreDNS $coredns, metrics-server $metrics_server: missing or another version:" \
            "${missing//$'\n'/ }"
        exit 1
    fi
    echo "$KUBERNETES_BIN"
    exit
fi
mkdir -p "$bin"
for tool in $(missing_in "$bin"); do
    if ! command -v go >/dev/null; then
        say "Go is needed to build $tool ${wanted[$tool]}: install Go 1.24 or later,"
        say "or set KUBERNETES_BIN to a folder with $*"
        exit 3
    fi
    build "$tool"
done
echo "$bin"
