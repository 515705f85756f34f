//! Tidings with a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod api_server;
mod api_server_outage;
mod bed;
mod console;
mod crds;
mod deploy;
mod events;
mod flux_crds;
mod grants;
mod guides;
mod helm_release;
mod labels;
mod lease;
mod many_rules;
mod matrix;
mod object;
mod rbac;
mod rules;
mod secrets;
mod services;
mod several;
mod shadow;
mod status;
mod test_rules;
mod token_review;
mod versions;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
