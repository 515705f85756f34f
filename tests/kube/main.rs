//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod away;
mod bed;
mod crds;
mod flux_crds;
mod many;
mod object;
mod rig;
mod rules;
mod secrets;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
