//! The rate limits and the maximum age that apply to a delivery.

use std::sync::Arc;

use jiff::Timestamp;
use tidings_core::model::id;
use tidings_core::model::time::{after, from_proto};
use tidings_core::{Destination, ProtoTimestamp};
use tidings_rules::{RateLimit, ResolvedProvider};

use crate::message::repository::repository;
use crate::notifier::contract::limits::{LimitScope, RateLimits};
use crate::notifier::provider_type;

/// The rate limits of a provider type.
fn of_type(provider: &ResolvedProvider) -> RateLimits {
    provider_type(provider.kind.name).map_or(RateLimits::NONE, |row| row.rate_limits)
}

/// The rate limits of a Provider: its own, or those of its type.
pub fn rates(provider: &ResolvedProvider) -> Arc<[RateLimit]> {
    match provider.rate_limit {
        Some(rate) => Arc::new([rate]),
        None => of_type(provider).rates.into(),
    }
}

/// The key of the record in the bucket `limits` that holds the reserved slots of a destination. A
/// Provider's own limit does not apply to other Providers of the account.
pub fn key(provider: &ResolvedProvider, destination: &Destination) -> String {
    let scope = of_type(provider).scope;
    let parts = match scope {
        LimitScope::Channel => {
            vec![
                "channel",
                &provider.namespace,
                &provider.name,
                destination.channel.as_deref().unwrap_or_default(),
            ]
        }
        LimitScope::Account if provider.rate_limit.is_none() => {
            let host = repository(provider)
                .map(|repository| repository.host().to_owned())
                .unwrap_or_default();
            return format!(
                "slots.{}",
                id::digest(&["account", &host, account(provider)])
            );
        }
        LimitScope::Provider | LimitScope::Account => {
            vec!["provider", &provider.namespace, &provider.name]
        }
    };
    format!("slots.{}", id::digest(&parts))
}

/// The later of two times, if there are any.
pub fn later(one: Option<ProtoTimestamp>, other: Option<ProtoTimestamp>) -> Option<ProtoTimestamp> {
    one.into_iter()
        .chain(other)
        .max_by_key(|time| (time.seconds, time.nanos))
}

/// The time at which a delivery that was planned at `planned_at` is given up.
pub fn end(planned_at: Option<ProtoTimestamp>, provider: &ResolvedProvider) -> Option<Timestamp> {
    from_proto(planned_at).map(|planned| after(planned, provider.retry.max_age))
}

/// The credential that identifies the account at the service.
fn account(provider: &ResolvedProvider) -> &str {
    let keys = ["githubAppID", "token", "username"];
    keys.into_iter()
        .find_map(|key| provider.secret.text(key))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::sample::{provider, secret};

    fn github(name: &str, address: &str, token: &str) -> ResolvedProvider {
        provider("github", |provider| {
            (provider.name, provider.address) = (name.into(), address.into());
            provider.secret = secret(&[("token", token)]);
        })
    }

    fn key_of(provider: &ResolvedProvider, channel: &str) -> String {
        key(
            provider,
            &Destination::channel(&provider.namespace, &provider.name, channel),
        )
    }

    #[test]
    fn providers_with_the_same_credentials_at_a_host_share_its_limits() {
        let one = github("one", "https://github.com/acme/one", "t1");
        assert_eq!(
            key_of(&one, ""),
            key_of(&github("two", "git@github.com:acme/two.git", "t1"), "")
        );
        assert_ne!(
            key_of(&one, ""),
            key_of(&github("two", "https://github.com/acme/two", "t2"), "")
        );
        assert_ne!(
            key_of(&one, ""),
            key_of(
                &github("two", "https://ghe.acme.example/acme/two", "t1"),
                ""
            )
        );
        assert!(!key_of(&one, "").contains("t1"));
    }

    #[test]
    fn the_limit_scope_of_the_type_decides_what_shares_a_limit() {
        let slack = provider("slack", |_| ());
        assert_ne!(key_of(&slack, "#a"), key_of(&slack, "#b"));
        let pagerduty = provider("pagerduty", |_| ());
        assert_eq!(key_of(&pagerduty, "a"), key_of(&pagerduty, "b"));
    }

    #[test]
    fn a_providers_own_limit_replaces_that_of_its_type() {
        let mut github = github("one", "https://github.com/acme/one", "t1");
        assert_eq!(rates(&github).len(), 2);
        let shared = key_of(&github, "");
        let own = RateLimit {
            count: 10,
            per: Duration::from_secs(1),
        };
        github.rate_limit = Some(own);
        assert_eq!(rates(&github).as_ref(), [own]);
        assert_ne!(key_of(&github, ""), shared);
        assert!(rates(&provider("generic", |_| ())).is_empty());
    }
}
