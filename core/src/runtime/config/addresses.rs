//! Which addresses Providers and their proxies may have.

use ipnet::IpNet;
use serde::Serialize;

use super::pod::is_in_pod;
use super::read::Reader;
use super::value;

/// Which addresses Providers may have, in addition to the built-in rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressSettings {
    /// `worker.addresses.allow`: networks that are allowed before all other rules.
    pub allow: Vec<IpNet>,
    /// `worker.addresses.deny`: networks that are rejected.
    pub deny: Vec<IpNet>,
    /// `worker.addresses.loopback`: whether loopback addresses are allowed.
    pub loopback: bool,
}

impl Default for AddressSettings {
    /// In a pod, loopback reaches the pod's other containers, so it is not allowed there.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            loopback: !is_in_pod(),
        }
    }
}

impl AddressSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            allow: reader.list_of("worker.addresses.allow", value::network),
            deny: reader.list_of("worker.addresses.deny", value::network),
            loopback: reader
                .optional("worker.addresses.loopback", value::switch)
                .unwrap_or_else(|| !is_in_pod()),
        }
    }
}
