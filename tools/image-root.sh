#!/usr/bin/env bash
# Gather the files of the image in a folder: tidings, nats-server, the libraries that they need,
# certificate authorities, and a user without rights. No shell and no package manager.
#
# Usage: tools/image-root.sh TIDINGS NATS_SERVER FOLDER
set -euo pipefail

tidings=$1
nats_server=$2
root=$3

authorities=/etc/ssl/certs/ca-certificates.crt
[ -f "$authorities" ] || {
    echo "image: $authorities is missing: install ca-certificates" >&2
    exit 1
}
mkdir -p "$root"/{etc/ssl/certs,usr/local/bin,var/lib/tidings,tmp}
install -m 755 "$tidings" "$root/usr/local/bin/tidings"
install -m 755 "$nats_server" "$root/usr/local/bin/nats-server"
install -m 644 "$authorities" "$root$authorities"
echo 'tidings:x:65532:65532:Tidings:/var/lib/tidings:/sbin/nologin' >"$root/etc/passwd"
echo 'tidings:x:65532:' >"$root/etc/group"
# Host names: first the pod's file, then DNS.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
# Volumes that an engine creates here take over the owner.
chmod 777 "$root/var/lib/tidings"

# The loader and the libraries, at the paths where the executables look for them. ldd fails for a
# static executable, which needs none.
for executable in "$tidings" "$nats_server"; do
    libraries=$(ldd "$executable" 2>/dev/null | grep -Eo '/[^ ]+' || true)
    for library in $libraries; do
        install -D -m 755 "$(realpath "$library")" "$root$library"
    done
done
