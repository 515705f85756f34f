#!/usr/bin/env bash
# The steps of a release. The workflow .github/workflows/release.yaml calls them one by one, and
# `make release-dry-run` runs all that need no registry. Files go to dist/.
#
#   tools/release.sh versions VERSION    check that versions and changelog agree with the tag
#   tools/release.sh executable          build and pack the executable for this machine
#   tools/release.sh sbom                write its bill of materials
#   tools/release.sh chart               package the chart
#   tools/release.sh checksums           write checksums of everything in dist/, and verify them
#   tools/release.sh notes VERSION       print the section of the changelog
#   tools/release.sh dry-run             all of it; TIDINGS=FILE takes that executable
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
dist=${DIST:-dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

say() { printf 'release: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

arch() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64 ;;
    *) fail "no release for $(uname -m)" ;;
    esac
}

versions() {
    local wanted=${1:?usage: tools/release.sh versions VERSION}
    [ "$wanted" = "$version" ] || fail "the tag is v$wanted, and Cargo.toml has $version"
    local file
    for file in deploy/chart/Chart.yaml Containerfile \
        deploy/overlays/{single,standard,member}/kustomization.yaml; do
        grep -Eq "(appVersion: |newTag: |VERSION=)$version\$" "$file" ||
            fail "$file: the version must be $version"
    done
    notes "$wanted" >/dev/null
}

executable() {
    local built=${TIDINGS:-target/release/tidings} name folder
    if [ -z "${TIDINGS:-}" ]; then
        local build=build
        cargo auditable --version >/dev/null 2>&1 && build="auditable build"
        # shellcheck disable=SC2086
        ${CARGO:-cargo} $build --locked --release --bin tidings
    fi
    [ "$("$built" --version)" = "tidings $version" ] ||
        fail "$built is $("$built" --version), expected version $version"
    name=tidings-$version-linux-$(arch)
    mkdir -p "$dist"
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" RETURN
    mkdir "$folder/$name"
    install -m 755 "$built" "$folder/$name/tidings"
    install -m 644 LICENSE README.md CHANGELOG.md "$folder/$name/"
    # The same input gives the same archive.
    tar --create --gzip --file "$dist/$name.tar.gz" --directory "$folder" --sort=name \
        --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" "$name"
    say "$dist/$name.tar.gz"
}

sbom() {
    mkdir -p "$dist"
    local file
    file=$dist/tidings-$version-linux-$(arch).cdx.json
    python3 tools/sbom.py "$(tools/nats-server.sh)" >"$file"
    python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["components"]' "$file"
    say "$file"
}

chart() {
    local helm
    helm=$(tools/deploy-tool.sh helm)
    mkdir -p "$dist"
    "$helm" package deploy/chart --destination "$dist" >/dev/null 2>&1 ||
        fail "helm cannot package deploy/chart"
    say "$(echo "$dist"/tidings-*.tgz)"
}

checksums() {
    (
        cd "$dist"
        rm -f checksums.txt
        sha256sum -- *.tar.gz *.tgz *.json >checksums.txt
        sha256sum --quiet --check checksums.txt
    )
    say "$dist/checksums.txt"
}

notes() {
    python3 tools/release/notes.py "${1:?usage: tools/release.sh notes VERSION}"
}

dry_run() {
    rm -rf "$dist"
    say "workflows"
    local actionlint
    actionlint=$(tools/deploy-tool.sh actionlint)
    "$actionlint" .github/workflows/*.yaml
    executable
    sbom
    chart
    checksums
    # Before its release a version has no section of its own.
    notes "$version" >"$dist/notes.md" 2>/dev/null || notes Unreleased >"$dist/notes.md"
    say "$dist/notes.md"
    say "not run: the other architecture, images, signatures, uploads"
}

case ${1:-} in
versions | executable | sbom | chart | checksums | notes) "$@" ;;
dry-run) dry_run ;;
*)
    sed -n '2,12p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
