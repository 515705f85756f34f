//! Addresses of Providers, and the networks that are never called.

use std::net::{IpAddr, SocketAddr};

use tidings_core::runtime::config::AddressSettings;
use tidings_workers::http::address_rules::AddressRules;
use url::{Host, Url};

use crate::runner::Target;

#[test]
fn no_spelling_of_an_internal_address_is_admitted() {
    Target {
        name: "addresses",
        dictionary: &[
            "http://",
            "https://",
            "nats://",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "127.1",
            "0177.0.0.1",
            "localhost",
            "[::1]",
            "metadata.google.internal",
            "%31",
            "@",
            ":80",
            "。",
            "①",
            ".",
            "#",
            "?",
            "\\",
        ],
        check: |input| {
            let Ok(text) = str::from_utf8(input) else {
                return;
            };
            let Ok(url) = Url::parse(text) else { return };
            let rules = AddressRules::new(AddressSettings::default());
            let address = match url.host() {
                Some(Host::Ipv4(address)) => IpAddr::V4(address),
                Some(Host::Ipv6(address)) => IpAddr::V6(address),
                _ => return,
            };
            if is_internal(address) {
                assert!(rules.check_url(&url).is_err(), "{url}");
                let found = [SocketAddr::new(address, 443)].into_iter();
                assert!(rules.admit("host", found).is_err(), "{address}");
            }
        },
    }
    .run();
}

/// What the standard library calls link-local, unspecified or multicast, also within IPv6.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|address| is_internal(IpAddr::V4(address)))
        }
    }
}
