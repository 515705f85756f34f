#!/usr/bin/env bash
# Boot a node: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet,
# kube-proxy, CoreDNS and metrics-server. Returns when the node is ready. FOLDER gets their files
# and logs; BIN has the executables.
#
# Runs in the namespaces of namespace.sh: everything ends with them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/e2e/addresses.sh
source "$here/addresses.sh"
api=https://$NODE_ADDRESS:6443
cd "$FOLDER"
mkdir -p logs cni
export KUBECONFIG=$FOLDER/admin.kubeconfig

say() { printf 'node: %s\n' "$*" >&2; }

# Start a server; its output goes into a file.
start() {
    local name
    name=$(basename "$1")
    "$@" >"logs/$name.log" 2>&1 </dev/null &
}

# Wait until a command succeeds.
await() {
    local what=$1 attempt
    shift
    for attempt in {1..240}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    say "not within two minutes: $what; logs are in $FOLDER/logs"
    tail -n 5 logs/*.log >&2
    exit 1
}

write_keys() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=kube-apiserver of a test" -keyout api.key -out api.crt -addext \
        "subjectAltName=IP:127.0.0.1,IP:$NODE_ADDRESS,IP:$API_SERVICE,DNS:kubernetes.default.svc" \
        -addext basicConstraints=critical,CA:FALSE 2>/dev/null
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt >accounts.key
    openssl pkey -in accounts.key -pubout -out accounts.pub
    local token
    token=$(openssl rand -hex 16)
    echo "$token,admin,admin,system:masters" >tokens.csv
    cat >admin.kubeconfig <<END
apiVersion: v1
kind: Config
current-context: test
clusters:
  - name: test
    cluster: {server: "$api", certificate-authority: "$FOLDER/api.crt"}
users:
  - name: admin
    user: {token: "$token"}
contexts:
  - name: test
    context: {cluster: test, user: admin}
END
    chmod 600 ./*.key tokens.csv admin.kubeconfig
}

# What kube-apiserver proves its requests to metrics-server with.
write_proxy_keys() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=proxy authority of a test" -keyout proxy-ca.key -out proxy-ca.crt 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=kube-apiserver" \
        -keyout proxy.key -out proxy.csr 2>/dev/null
    openssl x509 -req -in proxy.csr -CA proxy-ca.crt -CAkey proxy-ca.key -CAcreateserial \
        -days 2 -out proxy.crt 2>/dev/null
    chmod 600 ./*.key
}

# Admission has the defaults of kube-apiserver, with ServiceAccount.
start_control_plane() {
    start "$BIN/etcd" --data-dir=etcd --log-level=warn --unsafe-no-fsync \
        --listen-client-urls=http://127.0.0.1:2379 \
        --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:0
    start "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --allow-privileged=true \
        --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$NODE_ADDRESS" \
        --tls-cert-file=api.crt --tls-private-key-file=api.key --token-auth-file=tokens.csv \
        --authorization-mode=RBAC --service-cluster-ip-range="$SERVICE_RANGE" \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-signing-key-file=accounts.key \
        --service-account-key-file=accounts.pub --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file=proxy-ca.crt --requestheader-allowed-names=kube-apiserver \
        --requestheader-username-headers=X-Remote-User \
        --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file=proxy.crt --proxy-client-key-file=proxy.key --profiling=false
    await "kube-apiserver is ready" "$BIN/kubectl" get --raw /readyz
    # Autoscalers decide within seconds, not minutes.
    start "$BIN/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
        --use-service-account-credentials=false --root-ca-file=api.crt \
        --service-account-private-key-file=accounts.key \
        --horizontal-pod-autoscaler-sync-period=5s \
        --horizontal-pod-autoscaler-cpu-initialization-period=20s \
        --horizontal-pod-autoscaler-downscale-stabilization=30s
    start "$BIN/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false
}

# Fill in the variables of a file of this folder.
render() {
    sed -e "s|@FOLDER@|$FOLDER|g" -e "s|@NODE_ADDRESS@|$NODE_ADDRESS|g" \
        -e "s|@POD_RANGE@|$POD_RANGE|g" -e "s|@CGROUP@|$CGROUP|g" \
        -e "s|@SNAPSHOTTER@|${SNAPSHOTTER:-overlayfs}|g" "$here/$1"
}

start_containerd() {
    render containerd.toml >containerd.toml
    render bridge.conflist >cni/10-bridge.conflist
    start containerd --config "$FOLDER/containerd.toml"
    await "containerd responds" "${CTR[@]}" version
    local image
    for image in "$FOLDER"/images/*.tar; do
        "${CTR[@]}" --namespace k8s.io image import --snapshotter "${SNAPSHOTTER:-overlayfs}" \
            "$image" >&2
    done
    # For upgrades.
    "${CTR[@]}" --namespace k8s.io image tag docker.io/library/tidings:{test,next} >&2
}

start_node() {
    render kubelet.yaml >kubelet.yaml
    start "$BIN/kubelet" --config=kubelet.yaml --kubeconfig="$KUBECONFIG" \
        --root-dir="$FOLDER/kubelet" --cert-dir="$FOLDER/kubelet-pki" \
        --hostname-override="$NODE_NAME" --node-ip="$NODE_ADDRESS" --housekeeping-interval=5s
    start "$BIN/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override="$NODE_NAME" \
        --cluster-cidr="$POD_RANGE" --proxy-mode=iptables --conntrack-max-per-core=0 \
        --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
    render Corefile >Corefile
    start "$BIN/coredns" -conf Corefile
    await "the node exists" "$BIN/kubectl" get node "$NODE_NAME"
    "$BIN/kubectl" wait --for=condition=Ready "node/$NODE_NAME" --timeout=120s >&2 || {
        say "the node does not become ready; logs are in $FOLDER/logs"
        tail -n 20 logs/kubelet.log >&2
        exit 1
    }
}

# Pods' CPU and memory for autoscalers.
start_metrics_server() {
    start "$BIN/metrics-server" --kubeconfig="$KUBECONFIG" --cert-dir=metrics-server \
        --authentication-kubeconfig="$KUBECONFIG" --authorization-kubeconfig="$KUBECONFIG" \
        --secure-port=4443 --bind-address="$NODE_ADDRESS" --kubelet-insecure-tls \
        --kubelet-preferred-address-types=InternalIP --kubelet-request-timeout=5s \
        --metric-resolution=10s
    render metrics-server.yaml | "$BIN/kubectl" apply --server-side --filename - >&2
    await "metrics-server answers" "$BIN/kubectl" get --raw /apis/metrics.k8s.io/v1beta1/nodes
}

CTR=(ctr --address "$FOLDER/containerd.sock")
write_keys
write_proxy_keys
start_control_plane
start_containerd
start_node
start_metrics_server
say "ready"
