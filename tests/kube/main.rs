//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod crds;
mod object;
mod rig;
mod status;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
