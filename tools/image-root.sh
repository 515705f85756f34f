#!/usr/bin/env bash
# Gather the files of the image in a folder: tidings, nats-server, the libraries that they need,
# certificate authorities, and a user without rights. No shell and no package manager.
#
# Usage: tools/image-root.sh TIDINGS NATS_SERVER FOLDER [MACHINE]
set -euo pipefail

tidings=$1
nats_server=$2
root=$3
machine=${4:-$(uname -m)}

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

# Print the loader and the libraries that an executable for this machine needs, each where it looks
# for it and where it is here. ldd fails for a static executable, which needs none.
libraries() {
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -Eo '/[^ ]+' || true); do
        echo "$library $(realpath "$library")"
    done
}

# The same for another architecture, from the files of the cross compiler.
foreign_libraries() {
    local machine=$1 executable=$2 library needed
    local from=/usr/$machine-linux-gnu/lib
    # Alone, because the status of a command in a list of words is lost.
    needed=$("$machine-linux-gnu-readelf" --dynamic --program-headers "$executable" |
        sed -En 's/.*\(NEEDED\).*\[(.*)\]/\1/p; s/.*program interpreter: \/lib\/(.*)\]/\1/p' |
        sort -u)
    for library in $needed; do
        echo "/lib/$library $(realpath "$from/$library")"
    done
}

for executable in "$tidings" "$nats_server"; do
    if [ "$machine" = "$(uname -m)" ]; then
        libraries "$executable"
    else
        foreign_libraries "$machine" "$executable"
    fi | while read -r library file; do
        install -D -m 755 "$file" "$root$library"
    done
done
