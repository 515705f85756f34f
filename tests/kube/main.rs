//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod away;
mod bed;
mod crds;
mod events;
mod guides;
mod labels;
mod lease;
mod object;
mod rbac;
mod rig;
mod rules;
mod services;
mod status;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
