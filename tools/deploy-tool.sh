#!/usr/bin/env bash
# Print the path of helm, kustomize, promtool, prometheus or actionlint:
# `helm=$(tools/deploy-tool.sh helm)`.
#
# Takes the one on PATH if it is new enough, else installs it into .tools/ once: promtool and
# prometheus from the distribution's package where there is apt-get, the others with Go.
#
# Exit status 3: it must be installed, and this machine cannot.
set -euo pipefail

tool=${1:?usage: tools/deploy-tool.sh helm|kustomize|promtool|prometheus|actionlint}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$project/.tools/bin

say() { printf '%s: %s\n' "$tool" "$*" >&2; }

case $tool in
helm) module=helm.sh/helm/v4/cmd/helm@v4.3.1 ;;
kustomize) module=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 ;;
actionlint) module=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 ;;
promtool | prometheus) module=github.com/prometheus/prometheus/cmd/$tool@v0.316.0 ;;
*)
    say "unknown tool"
    exit 2
    ;;
esac

# Succeed if an executable runs and is new enough.
is_usable() {
    case $tool in
    helm) "$1" version --short 2>/dev/null | grep -Eq '^v(3\.(1[4-9]|[2-9][0-9])|[4-9])' ;;
    kustomize) "$1" version 2>/dev/null | grep -Eq 'v(5|[6-9])\.|devel' ;;
    actionlint) "$1" -version >/dev/null 2>&1 ;;
    promtool | prometheus) "$1" --version >/dev/null 2>&1 ;;
    esac
}

# They take long to build, and distributions package them.
install_package() {
    [ "$tool" = promtool ] || [ "$tool" = prometheus ] || return 1
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" RETURN
    (cd "$folder" && apt-get download prometheus >/dev/null 2>&1) || return 1
    dpkg-deb -x "$folder"/prometheus_*.deb "$folder/files" || return 1
    mv -f "$folder/files/usr/bin/$tool" "$bin/$tool"
}

install_with_go() {
    command -v go >/dev/null || return 1
    GOBIN=$bin go install "$module" >&2
}

for found in "$(command -v "$tool" || true)" "$bin/$tool"; do
    if [ -n "$found" ] && [ -x "$found" ] && is_usable "$found"; then
        echo "$found"
        exit
    fi
done
mkdir -p "$bin"
say "installing into .tools/ (once)"
{ install_package && is_usable "$bin/$tool"; } || install_with_go || {
    say "cannot install it: install Go 1.24 or later, or $tool itself"
    exit 3
}
is_usable "$bin/$tool" || {
    say "the installed one does not run"
    exit 1
}
echo "$bin/$tool"
