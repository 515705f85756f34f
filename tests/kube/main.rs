//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod events;
mod labels;
mod rig;
