//! Whether this process runs in a pod, and what follows from it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The folder of the service account token in a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Kubernetes sets this variable in every container to the address of the API server.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// Whether this process runs in a pod.
pub(super) fn is_in_pod() -> bool {
    std::env::var_os(SERVICE_HOST).is_some() || Path::new(SERVICE_ACCOUNT).exists()
}

/// The interface of the admin address: loopback outside of a pod. In a pod every interface, because
/// probes and Prometheus reach it by the address of the pod.
pub(super) fn admin_interface() -> IpAddr {
    let host = std::env::var_os(SERVICE_HOST);
    interface(is_in_pod(), host.as_deref())
}

/// In a cluster without IPv4 the API server has an IPv6 address.
fn interface(is_in_pod: bool, service_host: Option<&OsStr>) -> IpAddr {
    let host = service_host.and_then(OsStr::to_str);
    let is_ipv6 = host.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    match (is_in_pod, is_ipv6) {
        (false, _) => Ipv4Addr::LOCALHOST.into(),
        (true, false) => Ipv4Addr::UNSPECIFIED.into(),
        (true, true) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_address_is_reachable_in_a_pod_only() {
        for (is_in_pod, host, expected) in [
            (false, None, "127.0.0.1"),
            (true, Some("10.96.0.1"), "0.0.0.0"),
            (true, Some("fd00:10:96::1"), "::"),
            (true, None, "0.0.0.0"),
        ] {
            let found = interface(is_in_pod, host.map(OsStr::new));
            assert_eq!(found.to_string(), expected, "{is_in_pod} {host:?}");
        }
    }
}
