#!/usr/bin/env bash
# The steps of a release. The workflow .github/workflows/release.yaml calls them one by one, and
# `make release-dry-run` runs all that need no registry. Files go to dist/.
#
#   tools/release.sh versions VERSION    check that versions and changelog agree with the tag
#   tools/release.sh agree [FOLDER]      check that Cargo, chart, Kustomize and image have the same
#                                        version, in another copy of the project if one is given
#   tools/release.sh previous            build the release before this one, and print the path of
#                                        its executable
#   tools/release.sh executable          build and pack the executable
#   tools/release.sh sbom                write its bill of materials
#   tools/release.sh chart               package the chart
#   tools/release.sh checksums           write checksums of everything in dist/, and verify them
#   tools/release.sh notes VERSION       print the section of the changelog
#   tools/release.sh dry-run             all of it; TIDINGS=FILE takes that executable
#
# ARCH=amd64|arm64 chooses the architecture of executable and bill of materials. Default: this
# machine's.
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

# Print the name of the architecture: arch, or machine in compilers.
arch() { tools/arch.sh | cut -d' ' -f1; }
machine() { tools/arch.sh | cut -d' ' -f2; }

versions() {
    local wanted=${1:?usage: tools/release.sh versions VERSION}
    [ "$wanted" = "$version" ] || fail "the tag is v$wanted, and Cargo.toml has $version"
    agree
    notes "$wanted" >/dev/null
}

# The versions that a file names: each one must be that of Cargo.toml.
versions_of() {
    case $1 in
    */Chart.yaml) sed -nE 's/^(version|appVersion): *"?([^" ]*).*/\2/p' "$1" ;;
    */kustomization.yaml) sed -nE 's/^ *newTag: *"?([^" ]*).*/\1/p' "$1" ;;
    *Containerfile) sed -nE 's/^ARG VERSION=(.*)/\1/p' "$1" ;;
    esac
}

agree() {
    local folder=${1:-.} wanted file found one
    wanted=$(sed -n 's/^version = "\(.*\)"/\1/p' "$folder/Cargo.toml" | head -n 1)
    [ -n "$wanted" ] || fail "Cargo.toml has no version"
    for file in deploy/chart/Chart.yaml Containerfile deploy/overlays/*/kustomization.yaml; do
        found=$(versions_of "$folder/$file")
        for one in $found; do
            [ "$one" = "$wanted" ] || fail "$file: the version must be $wanted, and is $one"
        done
    done
    for file in deploy/chart/Chart.yaml=2 Containerfile=1 \
        deploy/overlays/{single,standard,member}/kustomization.yaml=1; do
        found=$(versions_of "$folder/${file%=*}" | wc -l)
        [ "$found" = "${file#*=}" ] ||
            fail "${file%=*}: $found versions are found, expected ${file#*=}"
    done
}

# The last release, from which tests upgrade: the newest tag before this commit. Before the first
# tag it is the commit that stored the newest tests/fixtures, which later versions must read.
previous_commit() {
    git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null ||
        git log -1 --diff-filter=A --format=%h -- 'tests/fixtures/v*'
}

previous() {
    local commit folder
    commit=$(previous_commit)
    [ -n "$commit" ] || fail "no earlier tag, no commit of tests/fixtures: fetch the history"
    folder=$project/target/previous/$commit
    if [ ! -x "$folder/debug/tidings" ]; then
        say "building $commit into target/previous (once)"
        [ -d "$folder/source" ] ||
            git worktree add --quiet --force --detach "$folder/source" "$commit" >&2
        (cd "$folder/source" && CARGO_TARGET_DIR=$folder ${CARGO:-cargo} build --locked \
            --workspace --bin tidings) >&2
        git worktree remove --force "$folder/source"
    fi
    echo "$folder/debug/tidings"
}

# Print what an executable says of its version; nothing if it is for another architecture and this
# machine cannot emulate it.
version_of() {
    if [ "$(machine)" = "$(uname -m)" ]; then
        "$1" -V
    elif command -v "qemu-$(machine)" >/dev/null; then
        "qemu-$(machine)" -L "/usr/$(machine)-linux-gnu" "$1" -V
    else
        say "$1 is not run: it needs qemu-user"
    fi
}

executable() {
    local built name folder said
    built=$(tools/executable.sh)
    said=$(version_of "$built")
    [ "${said:-tidings $version}" = "tidings $version" ] ||
        fail "$built is $said, expected version $version"
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
    python3 tools/sbom.py "$(tools/nats-server-for.sh "$(arch)")" "$(machine)" >"$file"
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

# The executable for the other architecture, if this machine has a cross compiler.
other_architecture() {
    local other=arm64 status=0
    [ "$(arch)" = amd64 ] || other=amd64
    if [ -n "${TIDINGS:-}" ]; then
        say "not run: $other, because TIDINGS is for $(arch)"
        return
    fi
    ARCH=$other tools/release.sh executable || status=$?
    case $status in
    0) ARCH=$other tools/release.sh sbom ;;
    3) say "not run: $other" ;;
    *) exit "$status" ;;
    esac
}

# The image, by the way that needs no registry.
image() {
    if command -v buildah >/dev/null; then
        ENGINE=buildah tools/image.sh "tidings:$version"
    else
        say "not run: the image, which needs buildah here"
    fi
}

dry_run() {
    rm -rf "$dist"
    say "workflows"
    local actionlint
    actionlint=$(tools/deploy-tool.sh actionlint)
    "$actionlint" .github/workflows/*.yaml
    executable
    sbom
    other_architecture
    image
    chart
    checksums
    # Before its release a version has no section of its own.
    notes "$version" >"$dist/notes.md" 2>/dev/null || notes Unreleased >"$dist/notes.md"
    say "$dist/notes.md"
    say "not run: signatures, uploads"
}

case ${1:-} in
versions | agree | previous | executable | sbom | chart | checksums | notes) "$@" ;;
dry-run) dry_run ;;
*)
    sed -n '2,18p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
