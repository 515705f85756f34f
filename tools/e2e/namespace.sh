#!/usr/bin/env bash
# Prepare the namespaces that tools/e2e.sh created, boot a node in them and run a command on it.
#
# Usage: namespace.sh FOLDER CGROUP COMMAND... The command finds the cluster in KUBECONFIG.
set -euo pipefail

export FOLDER=$1 CGROUP=$2
shift 2
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/e2e/addresses.sh
source "$here/addresses.sh"

# A bridge for pods, with an address of this machine, and a route to the addresses of Services.
# A fixed hardware address: otherwise it changes with each pod.
ip link set lo up
ip link add tidings0 address 0a:58:0a:d1:00:01 type bridge
ip address add "$NODE_ADDRESS/24" dev tidings0
ip link set tidings0 up
ip route add "$SERVICE_RANGE" dev tidings0
echo 1 >/proc/sys/net/ipv4/ip_forward

# Folders that containerd and the CNI plugins have in fixed places.
for folder in /run/containerd /run/netns /var/lib/cni /var/log/pods /var/log/containers; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
# The kubelet changes these settings of the whole machine. It changes copies.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=$FOLDER/sysctl/$setting
    mkdir -p "$(dirname "$copy")"
    cat "/proc/sys/$setting" >"$copy"
    mount --bind "$copy" "/proc/sys/$setting"
done

"$here/boot.sh"
export KUBECONFIG=$FOLDER/admin.kubeconfig
"$@" || {
    status=$?
    {
        "$BIN/kubectl" get pods --all-namespaces --output wide
        "$BIN/kubectl" get events --all-namespaces --field-selector type=Warning | tail -n 30
    } >&2 || true
    exit "$status"
}
