#!/usr/bin/env bash
# Build the image: `tools/image.sh tidings:0.1.0`. ENGINE chooses how: `docker` and `podman` build
# the Containerfile; `buildah` needs neither an engine nor a base image: it copies the release
# executable of this machine into an empty image. Default: the first of them that works.
#
# With TIDINGS=FILE buildah takes that executable. It writes target/image/tidings.tar, which
# `docker load`, `podman load` and `ctr image import` read. With ARCH=arm64 or amd64 it builds for
# that architecture, if tools/executable.sh can. PUSH=1 pushes the image to the registry in its
# name.
set -euo pipefail

image=${1:?usage: tools/image.sh NAME:TAG}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
folder=target/image
description="Delivers the notifications of GitOps controllers"

say() { printf 'image: %s\n' "$*" >&2; }

choose() {
    local engine
    for engine in docker podman; do
        if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
            echo "$engine"
            return
        fi
    done
    command -v buildah >/dev/null && echo buildah && return
    say "needs docker, podman or buildah"
    exit 1
}

build_with_engine() {
    local arch
    read -r arch _ <<<"$(tools/arch.sh)"
    "$1" build --platform "linux/$arch" --file Containerfile --tag "$image" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" .
    [ "${PUSH:-}" != 1 ] || "$1" push "$image"
    say "built $image"
}

# A user namespace, a storage driver and an isolation that work without privileges and without an
# engine.
run_buildah() {
    STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} \
        buildah "$@"
}

build_with_buildah() {
    local executable nats_server container arch machine
    read -r arch machine <<<"$(tools/arch.sh)"
    nats_server=$(tools/nats-server-for.sh "$arch")
    executable=$(tools/executable.sh)
    rm -rf "$folder"
    mkdir -p "$folder/root/usr/share/sbom"
    tools/image-root.sh "$executable" "$nats_server" "$folder/root" "$machine"
    python3 tools/sbom.py "$nats_server" "$machine" >"$folder/root/usr/share/sbom/tidings.cdx.json"
    container=$(run_buildah from --arch "$arch" scratch)
    run_buildah copy --quiet "$container" "$folder/root" / >/dev/null
    run_buildah config --arch "$arch" --user 65532:65532 --workingdir /var/lib/tidings \
        --env PATH=/usr/local/bin --entrypoint '["tidings"]' --cmd --help \
        --port 9090 --port 8080 --port 8081 --port 8082 \
        --label org.opencontainers.image.title=Tidings \
        --label "org.opencontainers.image.description=$description" \
        --label org.opencontainers.image.licenses=Apache-2.0 \
        --label "org.opencontainers.image.version=$version" \
        --label "org.opencontainers.image.revision=$revision" "$container"
    run_buildah commit --quiet "$container" "docker-archive:$folder/tidings.tar:$image" >/dev/null
    if [ "${PUSH:-}" = 1 ]; then
        run_buildah commit --quiet "$container" "docker://$image" >/dev/null
    fi
    run_buildah rm "$container" >/dev/null
    say "built $image: $folder/tidings.tar"
}

engine=${ENGINE:-$(choose)}
case $engine in
docker | podman) build_with_engine "$engine" ;;
buildah) build_with_buildah ;;
*)
    say "ENGINE=$engine: must be docker, podman or buildah"
    exit 2
    ;;
esac
