//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod crds;
mod object;
mod rig;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
