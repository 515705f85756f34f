//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod away;
mod bed;
mod crds;
mod events;
mod flux_crds;
mod labels;
mod lease;
mod many;
mod object;
mod rig;
mod rules;
mod secrets;
mod status;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
