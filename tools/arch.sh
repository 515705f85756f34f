#!/usr/bin/env bash
# Print the architecture of images and archives, and its name in compilers: `amd64 x86_64`. ARCH
# chooses one; default: this machine's.
set -euo pipefail

case ${ARCH:-$(uname -m)} in
amd64 | x86_64) echo amd64 x86_64 ;;
arm64 | aarch64) echo arm64 aarch64 ;;
*)
    echo "arch: no release for ${ARCH:-$(uname -m)}" >&2
    exit 2
    ;;
esac
