//! Which addresses Providers may be at.

use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use super::read::Reader;
use super::value;

/// Where pods find the token of their service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Which addresses Providers may be at, beside what is always allowed and refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressSettings {
    /// `worker.addresses.allow`: networks that are allowed whatever else is said.
    pub allow: Vec<IpNet>,
    /// `worker.addresses.deny`: networks that are refused.
    pub deny: Vec<IpNet>,
    /// `worker.addresses.loopback`: whether services on this very machine are allowed.
    pub loopback: bool,
}

impl Default for AddressSettings {
    /// Loopback is for people's own machines: in a pod it is the neighbours in that pod.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            loopback: !in_cluster(),
        }
    }
}

impl AddressSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            allow: reader.list_of("worker.addresses.allow", &[], value::network),
            deny: reader.list_of("worker.addresses.deny", &[], value::network),
            loopback: reader.or(
                "worker.addresses.loopback",
                Self::default().loopback,
                value::switch,
            ),
        }
    }
}

/// Whether this process runs in a pod: then Kubernetes has set this variable or mounted the token.
fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || Path::new(SERVICE_ACCOUNT).exists()
}
