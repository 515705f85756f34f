//! `watchdog.…` and `fallback.…`: what Tidings reports about itself.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::read::Reader;
use super::value::{self, Parsed};
use crate::model::origin::MAX_CLUSTER_NAME;

/// The shortest and the longest time between two notices.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest namespace or name, in bytes: a namespace that is qualified with a cluster.
const MAX_NAME: usize = MAX_CLUSTER_NAME + 1 + 63;

/// A Provider, as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A notice that is sent in each interval while notifications work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchdogSettings {
    /// `watchdog.provider`: off without one.
    pub provider: Option<ProviderName>,
    /// `watchdog.interval`
    #[serde(serialize_with = "value::write_duration")]
    pub interval: Duration,
}

/// Notices of dead letters, and of circuits that stay open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FallbackSettings {
    /// `fallback.provider`: off without one.
    pub provider: Option<ProviderName>,
    /// `fallback.interval`: at most one notice in this time.
    #[serde(serialize_with = "value::write_duration")]
    pub interval: Duration,
    /// `fallback.circuit_open_for`: how long a circuit must be open to be reported.
    #[serde(serialize_with = "value::write_duration")]
    pub circuit_open_for: Duration,
}

impl WatchdogSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            provider: reader.optional("watchdog.provider", provider),
            interval: reader.value("watchdog.interval", interval),
        }
    }
}

impl FallbackSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            provider: reader.optional("fallback.provider", provider),
            interval: reader.value("fallback.interval", interval),
            circuit_open_for: reader.value("fallback.circuit_open_for", interval),
        }
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ProviderName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn provider(text: &str) -> Parsed<ProviderName> {
    let is_name = |name: &str| {
        let has_bound = (1..=MAX_NAME).contains(&name.len());
        has_bound && !name.contains(|it: char| it == '/' || it.is_whitespace() || it.is_control())
    };
    let parts = text.split_once('/');
    parts
        .filter(|(namespace, name)| is_name(namespace) && is_name(name))
        .map(|(namespace, name)| ProviderName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
        .ok_or("the namespace and name of a Provider, such as flux-system/on-call")
}

fn interval(text: &str) -> Parsed<Duration> {
    value::duration(text)
        .ok()
        .filter(|interval| (SHORTEST..=LONGEST).contains(interval))
        .ok_or("a duration from 1s to 24h, such as 5m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_a_namespace_and_a_name() {
        let parsed = provider("prod-eu:apps/on-call").unwrap();
        assert_eq!(parsed.namespace, "prod-eu:apps");
        assert_eq!(parsed.to_string(), "prod-eu:apps/on-call");
        let long = format!("apps/{}", "x".repeat(MAX_NAME + 1));
        for text in [
            "", "apps", "/name", "apps/", "a/b/c", "a b/c", "a/b\n", &long,
        ] {
            assert!(provider(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_interval_has_bounds() {
        for text in ["1s", "5m", "24h"] {
            assert!(interval(text).is_ok(), "{text}");
        }
        for text in ["0s", "999ms", "25h", "5", "-5m"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
