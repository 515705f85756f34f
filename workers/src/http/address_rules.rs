//! Which addresses workers connect to.
//!
//! A worker often has more network access than the users who write Providers. So every address is
//! checked right before it is used, on each redirect. `CheckedResolver` checks
//! the addresses of a name, and [`AddressRules::check_url`] an address in a URL.
//!
//! Ranges: IANA's special-purpose address registries (RFC 6890). Metadata services: the
//! documentation of AWS, Google Cloud, Azure, Alibaba Cloud and Oracle Cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use ipnet::IpNet;
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, Reason};
use url::{Host, Url};

const METADATA: &str = "the metadata service of a cloud";
const LINK_LOCAL: &str = "link-local";
const NOT_A_HOST: &str = "not the address of one machine";
const LOOPBACK: &str = "on the worker's own machine";
/// The name of Google's metadata service. It is checked too, because a proxy would resolve it.
const METADATA_HOST: &str = "metadata.google.internal";
const METADATA_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// Networks that are refused unless the settings allow them. The first match names the rule.
static REFUSED: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| {
    let networks = [
        ("169.254.169.254/32", METADATA),
        ("fd00:ec2::/32", METADATA),
        ("fd00:c1::a9fe:a9fe/128", METADATA),
        ("fd00:42::42/128", METADATA),
        ("fd20:ce::254/128", METADATA),
        ("100.100.100.200/32", METADATA),
        ("168.63.129.16/32", METADATA),
        ("192.0.0.192/32", METADATA),
        ("169.254.0.0/16", LINK_LOCAL),
        ("fe80::/10", LINK_LOCAL),
        ("0.0.0.0/8", NOT_A_HOST),
        ("::/128", NOT_A_HOST),
        ("224.0.0.0/4", NOT_A_HOST),
        ("240.0.0.0/4", NOT_A_HOST),
        ("ff00::/8", NOT_A_HOST),
    ];
    networks
        .map(|(network, rule)| (network.parse().expect("it is a network"), rule))
        .into()
});

/// The rules for addresses, with the settings of one process.
#[derive(Clone, Debug)]
pub struct AddressRules {
    settings: AddressSettings,
    own_receiver: Option<SocketAddr>,
}

/// An address that the rules refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{of}{host} was not called: {address} is {rule}; to allow it, add it to worker.addresses.allow"
)]
pub struct Refused {
    /// The field of a proxy, with a colon; empty for the address of a service.
    pub of: String,
    /// The host that was asked for.
    pub host: String,
    /// The refused address of the host.
    pub address: IpAddr,
    /// Why it is refused.
    pub rule: &'static str,
}

impl Refused {
    /// The same for the proxy that a field or key names.
    #[must_use]
    pub fn of_proxy(self, origin: &str) -> Self {
        Self {
            of: format!("{origin}: the proxy "),
            ..self
        }
    }
}

impl AddressRules {
    /// The rules with these settings.
    pub fn new(settings: AddressSettings) -> Self {
        Self {
            settings,
            own_receiver: None,
        }
    }

    /// These rules, but a URL may have this address and port of the process itself.
    pub fn with_own_receiver(self, receiver: SocketAddr) -> Self {
        Self {
            own_receiver: Some(receiver),
            ..self
        }
    }

    /// Checks the host of a URL if it is an address. Names are checked when they are resolved.
    ///
    /// # Errors
    /// The rules refuse the address.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(name))
                if name
                    .trim_end_matches('.')
                    .eq_ignore_ascii_case(METADATA_HOST) =>
            {
                METADATA_ADDRESS
            }
            // The hosts of other schemes, such as nats, are not parsed.
            Some(Host::Domain(name)) => match name.parse() {
                Ok(address) => address,
                Err(_) => return Ok(()),
            },
            None => return Ok(()),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        if self.own_receiver == Some(SocketAddr::new(address, port)) {
            return Ok(());
        }
        self.check(url.host_str().unwrap_or_default(), address)
    }

    /// Filters the addresses of a host.
    ///
    /// # Errors
    /// The rules refuse all of them.
    pub fn admit(
        &self,
        host: &str,
        found: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = None;
        let admitted: Vec<SocketAddr> = found
            .filter(|address| match self.check(host, address.ip()) {
                Ok(()) => true,
                Err(error) => {
                    refused.get_or_insert(error);
                    false
                }
            })
            .collect();
        refused
            .filter(|_| admitted.is_empty())
            .map_or(Ok(admitted), Err)
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        // An allowed network allows what it contains, not every address that embeds a part of it.
        let embedded = embedded(address).map(IpAddr::V4);
        let rule = self
            .rule(address)
            .or_else(|| embedded.and_then(|embedded| self.rule(embedded)));
        match rule {
            Some(rule) if !self.is_allowed(address) => Err(Refused {
                of: String::new(),
                host: host.to_owned(),
                address,
                rule,
            }),
            _ => Ok(()),
        }
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let mut allow = self.settings.allow.iter();
        allow.any(|network| network.contains(&address))
    }

    /// Why one form of an address is refused; `None` if it is not, or is allowed.
    fn rule(&self, address: IpAddr) -> Option<&'static str> {
        let AddressSettings { deny, loopback, .. } = &self.settings;
        let is_in = |network: &IpNet| network.contains(&address);
        if self.is_allowed(address) {
            return None;
        }
        match REFUSED.iter().find(|(network, _)| is_in(network)) {
            _ if deny.iter().any(is_in) => Some("in the setting worker.addresses.deny"),
            Some((_, rule)) => Some(rule),
            None if address.is_loopback() && !loopback => Some(LOOPBACK),
            None => None,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::permanent(Reason::Misconfigured, refused.to_string())
    }
}

/// The IPv4 address that an IPv6 address embeds: mapped, translated (RFC 2765), compatible,
/// through NAT64 (RFC 6052; of the local prefix of RFC 8215 as it is used with 96 bits), through
/// 6to4 or through ISATAP (RFC 5214).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if address > Ipv6Addr::LOCALHOST => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str], loopback: bool) -> AddressRules {
        let parsed = |networks: &[&str]| {
            networks
                .iter()
                .map(|network| network.parse().unwrap())
                .collect()
        };
        AddressRules::new(AddressSettings {
            allow: parsed(allow),
            deny: parsed(deny),
            loopback,
        })
    }

    fn rule_of(rules: &AddressRules, address: &str) -> Option<&'static str> {
        rules
            .check("host", address.parse().unwrap())
            .err()
            .map(|refused| refused.rule)
    }

    #[test]
    fn special_purpose_addresses_are_refused() {
        let rules = rules(&[], &[], true);
        for (address, rule) in [
            ("169.254.169.254", Some(METADATA)),
            ("::ffff:169.254.169.254", Some(METADATA)),
            ("::169.254.169.254", Some(METADATA)),
            ("64:ff9b::169.254.169.254", Some(METADATA)),
            ("2002:a9fe:a9fe::1", Some(METADATA)),
            ("::ffff:0:169.254.169.254", Some(METADATA)),
            ("64:ff9b:1::169.254.169.254", Some(METADATA)),
            ("64:ff9b:1:fffe::169.254.1.1", Some(LINK_LOCAL)),
            ("fd00::5efe:169.254.169.254", Some(METADATA)),
            ("2001:db8::200:5efe:169.254.1.1", Some(LINK_LOCAL)),
            ("fd00:ec2::254", Some(METADATA)),
            ("fd00:ec2::23", Some(METADATA)),
            ("fd00:c1::a9fe:a9fe", Some(METADATA)),
            ("fd00:42::42", Some(METADATA)),
            ("100.100.100.200", Some(METADATA)),
            ("168.63.129.16", Some(METADATA)),
            ("169.254.1.1", Some(LINK_LOCAL)),
            ("fe80::1", Some(LINK_LOCAL)),
            ("febf::1", Some(LINK_LOCAL)),
            ("0.0.0.0", Some(NOT_A_HOST)),
            ("::", Some(NOT_A_HOST)),
            ("::ffff:0.0.0.0", Some(NOT_A_HOST)),
            ("255.255.255.255", Some(NOT_A_HOST)),
            ("224.0.0.1", Some(NOT_A_HOST)),
            ("ff02::1", Some(NOT_A_HOST)),
            ("127.0.0.1", None),
            ("::1", None),
            ("10.0.0.1", None),
            ("192.168.1.1", None),
            ("fd00::1", None),
            ("fec0::1", None),
            ("140.82.121.3", None),
            ("64:ff9b::140.82.121.3", None),
            ("64:ff9b:1::140.82.121.3", None),
            ("::ffff:0:140.82.121.3", None),
            ("fd00::5efe:140.82.121.3", None),
            ("2606:4700::1111", None),
        ] {
            assert_eq!(rule_of(&rules, address), rule, "{address}");
        }
    }

    #[test]
    fn loopback_is_refused_if_the_settings_say_so() {
        let rules = rules(&[], &[], false);
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "fd00::5efe:127.0.0.1",
        ] {
            assert_eq!(rule_of(&rules, address), Some(LOOPBACK), "{address}");
        }
        assert_eq!(rule_of(&rules, "10.0.0.1"), None);
    }

    #[test]
    fn only_the_port_of_the_own_receiver_is_allowed() {
        let receiver = "127.0.0.1:9095".parse().unwrap();
        let rules = rules(&[], &[], false).with_own_receiver(receiver);
        for (url, is_allowed) in [
            ("http://127.0.0.1:9095/", true),
            ("http://127.0.0.1:9095/any/path", true),
            ("http://127.0.0.1:9096/", false),
            ("http://127.0.0.1/", false),
            ("http://127.0.0.2:9095/", false),
            ("http://[::1]:9095/", false),
        ] {
            let result = rules.check_url(&url.parse().unwrap());
            assert_eq!(result.is_ok(), is_allowed, "{url}");
        }
    }

    #[test]
    fn the_allow_list_takes_precedence() {
        let rules = rules(
            &["10.1.0.0/16", "169.254.7.7/32", "127.0.0.1/32"],
            &["10.0.0.0/8", "fd00::/8"],
            false,
        );
        for (address, is_allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("::ffff:10.2.0.1", false),
            ("fd00::1", false),
            ("169.254.7.7", true),
            ("169.254.7.8", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
        ] {
            assert_eq!(rule_of(&rules, address).is_none(), is_allowed, "{address}");
        }
    }

    #[test]
    fn an_allowed_network_does_not_allow_what_embeds_an_address_of_it() {
        let rules = rules(&["10.1.0.0/16"], &["10.0.0.0/8", "fd00::/8"], true);
        for allowed in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"] {
            assert_eq!(rule_of(&rules, allowed), None, "{allowed}");
        }
        for refused in ["10.2.0.1", "fd00:1::5efe:10.1.2.3", "::ffff:10.2.0.1"] {
            assert!(rule_of(&rules, refused).is_some(), "{refused}");
        }
    }

    #[test]
    fn an_address_in_a_url_is_recognized_in_every_notation() {
        let rules = rules(&[], &[], true);
        for (url, is_allowed) in [
            ("http://169.254.169.254/latest", false),
            ("http://2852039166/", false),
            ("http://0xa9.0xfe.0xa9.0xfe/", false),
            ("http://0251.0376.0251.0376/", false),
            ("http://[::ffff:a9fe:a9fe]/", false),
            ("http://Metadata.Google.Internal./", false),
            ("http://metadata.google.internal.example/", true),
            ("https://hooks.example.com/", true),
            ("http://127.1/", true),
        ] {
            assert_eq!(
                rules.check_url(&url.parse().unwrap()).is_ok(),
                is_allowed,
                "{url}"
            );
        }
    }

    #[test]
    fn a_host_is_refused_only_if_all_its_addresses_are_refused() {
        let rules = rules(&[], &[], true);
        let admit = |addresses: &[&str]| {
            rules.admit(
                "host",
                addresses.iter().map(|address| address.parse().unwrap()),
            )
        };
        assert_eq!(
            admit(&["169.254.1.1:80", "10.0.0.1:80"]),
            Ok(vec!["10.0.0.1:80".parse().unwrap()])
        );
        assert_eq!(admit(&[]), Ok(vec![]));
        let refused = admit(&["169.254.1.1:80"]).unwrap_err();
        let sentence = "host was not called: 169.254.1.1 is link-local; to allow it, add it to \
                        worker.addresses.allow";
        assert_eq!(
            Failure::from(refused),
            Failure::permanent(Reason::Misconfigured, sentence)
        );
    }
}
