//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod events;
mod labels;
mod crds;
mod object;
mod rig;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
