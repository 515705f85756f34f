//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod away;
mod bed;
mod crds;
mod events;
mod labels;
mod lease;
mod object;
mod rig;
mod rules;
mod status;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
