//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod crds;
mod events;
mod labels;
mod lease;
mod object;
mod rig;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
