#!/usr/bin/env bash
# Build the release executable, and print its path. TIDINGS=FILE: print that file instead.
#
# ARCH=amd64|arm64 builds for another architecture than this machine's. It needs Rust's target, for
# example `rustup target add aarch64-unknown-linux-gnu`, and a cross compiler, for example Debian's
# `gcc-aarch64-linux-gnu libc6-dev-arm64-cross`.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
if [ -n "${TIDINGS:-}" ]; then
    echo "$TIDINGS"
    exit
fi
build=build
cargo auditable --version >/dev/null 2>&1 && build="auditable build"
folder=${CARGO_TARGET_DIR:-target}
read -r arch machine <<<"$(tools/arch.sh)"
if [ "$machine" = "$(uname -m)" ]; then
    # shellcheck disable=SC2086
    ${CARGO:-cargo} $build --locked --release --bin tidings >&2
    echo "$folder/release/tidings"
    exit
fi
target=$machine-unknown-linux-gnu
compiler=$machine-linux-gnu-gcc
command -v "$compiler" >/dev/null || {
    echo "executable: $compiler is missing, so nothing can be built for $arch" >&2
    exit 3
}
[ -d "$(rustc --print target-libdir --target "$target")" ] || {
    echo "executable: Rust has no $target; see \`rustup target add\`" >&2
    exit 3
}
export "CARGO_TARGET_$(tr '[:lower:]-' '[:upper:]_' <<<"$target")_LINKER=$compiler"
export "CC_${target//-/_}=$compiler"
# shellcheck disable=SC2086
${CARGO:-cargo} $build --locked --release --bin tidings --target "$target" >&2
echo "$folder/$target/release/tidings"
