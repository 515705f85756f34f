//! Against a real Kubernetes API: kube-apiserver, etcd and kubectl.

mod rig;
