#!/usr/bin/env bash
# Print the folder of the executables of a Kubernetes node: .tools/bin. Missing ones are built first
# (once, about ten minutes on two cores). `make e2e` boots a node with them.
#
# Exit status 3: this machine cannot run a node; the output says why.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
packages="containerd runc containernetworking-plugins buildah iproute2 iptables conntrack openssl"

say() { printf 'node: %s\n' "$*" >&2; }

cannot() {
    say "$*"
    exit 3
}

[ "$(uname -s)" = Linux ] || cannot "a node needs Linux"
[ "$(id -u)" = 0 ] || cannot "a node needs root: it creates namespaces, cgroups and mounts"
unshare --net --mount --pid --fork true 2>/dev/null ||
    cannot "a node needs namespaces, and unshare (util-linux) cannot create them here"
missing=()
for executable in containerd ctr runc buildah ip iptables conntrack openssl; do
    command -v "$executable" >/dev/null || missing+=("$executable")
done
for plugin in bridge host-local loopback; do
    [ -x "/usr/lib/cni/$plugin" ] || missing+=("/usr/lib/cni/$plugin")
done
[ ${#missing[@]} = 0 ] ||
    cannot "missing: ${missing[*]}. On Debian: apt-get install $packages"
exec "$project/tools/kubernetes.sh" etcd kube-apiserver kubectl kube-controller-manager \
    kube-scheduler kubelet kube-proxy coredns metrics-server
