#!/usr/bin/env bash
# Boot a Kubernetes node in namespaces of its own, with the image of Tidings, and run a command on
# it: `tools/e2e.sh bash`. KUBECONFIG leads to the cluster. When the command ends, everything ends.
#
# TIDINGS=FILE takes this executable for the image. KEEP=1 keeps the folder with the logs.
# Exit status 3: this machine cannot run a node.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
BIN=$(tools/node.sh)
HELM=$(tools/deploy-tool.sh helm)
export BIN HELM
folder=$(mktemp -d /tmp/tidings-e2e-XXXXXX)
cgroup=$(basename "$folder")

# Remove what namespaces do not: files and empty cgroups.
clean() {
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
    [ "${KEEP:-}" = 1 ] || rm -rf "$folder"
}
trap clean EXIT

run_buildah() { STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot buildah "$@"; }

# The image of the first process of every pod.
build_pause() {
    local container
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$folder/pause" tools/e2e/pause.go
    container=$(run_buildah from scratch)
    run_buildah copy --quiet "$container" "$folder/pause" /pause >/dev/null
    run_buildah config --entrypoint '["/pause"]' "$container"
    run_buildah commit --quiet "$container" \
        "docker-archive:$folder/images/pause.tar:pause:test" >/dev/null
    run_buildah rm "$container" >/dev/null
}

# Flux's recorder. It needs Go 1.25 or later.
build_recorder() {
    export RECORDER=$folder/recorder
    (cd tests/e2e/recorder && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$RECORDER" .)
}

# cgroup v1 has a hierarchy for each controller, v2 one for all.
create_cgroups() {
    local hierarchy file
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        echo "+cpu +cpuset +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
        mkdir "/sys/fs/cgroup/$cgroup"
        echo "+cpu +cpuset +memory +pids" >"/sys/fs/cgroup/$cgroup/cgroup.subtree_control"
        return
    fi
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -f "$hierarchy/tasks" ] && [ ! -L "${hierarchy%/}" ] || continue
        mkdir "$hierarchy$cgroup"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -f "$hierarchy$file" ] || cat "$hierarchy$file" >"$hierarchy$cgroup/$file"
        done
    done
}

mkdir -p "$folder/images"
ENGINE=buildah tools/image.sh tidings:test
mv target/image/tidings.tar "$folder/images/tidings.tar"
build_pause
build_recorder
create_cgroups
unshare --net --mount --pid --fork --kill-child --mount-proc \
    tools/e2e/namespace.sh "$folder" "$cgroup" "$@"
