//! What a service takes: its type's limits, or those that the Provider sets in their place; and
//! whom they are for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::id;
use tidings_core::model::time::{after, from_proto};
use tidings_core::{Destination, ProtoTimestamp};
use tidings_rules::{RateLimit, ResolvedProvider};

use crate::notifier::repository_host;

/// The limits of a provider type, as its vendor documents them.
#[derive(Clone, Copy, Debug)]
pub struct TypeLimits {
    /// Whom they are for.
    pub scope: Scope,
    /// All of them hold together.
    pub rates: &'static [RateLimit],
}

/// What shares a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A Provider.
    Provider,
    /// A channel of a Provider.
    Channel,
    /// Whoever uses the same credentials at the same host, in whatever Provider.
    Account,
}

/// GitHub: content that is created, for each user or App,
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.
const GITHUB: TypeLimits = TypeLimits {
    scope: Scope::Account,
    rates: &[rate(80, 60), rate(500, 3600)],
};

/// The limits of a type. Where a vendor documents none, or none that is the same for everybody,
/// what its answers ask for is honoured all the same.
pub fn of_type(kind: &str) -> TypeLimits {
    let limits = |scope, rates| TypeLimits { scope, rates };
    match kind {
        // Of repository data: https://support.atlassian.com/bitbucket-cloud/docs/api-request-limits/
        "bitbucket" => limits(Scope::Account, const { &[rate(1000, 3600)] }),
        // As a webhook's answers tell in X-RateLimit-Limit: https://discord.com/developers/docs/topics/rate-limits
        "discord" => limits(Scope::Provider, const { &[rate(5, 2)] }),
        "github" | "githubdispatch" | "githubpullrequestcomment" => GITHUB,
        // https://docs.gitlab.com/administration/settings/rate_limit_on_notes_creation/
        "gitlabmergerequestcomment" => limits(Scope::Account, const { &[rate(300, 60)] }),
        // In a space: https://developers.google.com/workspace/chat/limits
        "googlechat" => limits(Scope::Provider, const { &[rate(1, 1)] }),
        // For each bot: https://open.larksuite.com/document/client-docs/bot-v3/add-custom-bot
        "lark" => limits(Scope::Provider, const { &[rate(5, 1), rate(100, 60)] }),
        // https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
        "msteams" => limits(Scope::Provider, const { &[rate(4, 1)] }),
        // For each integration key: https://community.pagerduty.com/forum/t/monitoring-api-rate-limiting/3318
        "pagerduty" => limits(Scope::Provider, const { &[rate(120, 60)] }),
        // https://docs.slack.dev/apis/web-api/rate-limits; webhooks too.
        "slack" => limits(Scope::Channel, const { &[rate(1, 1)] }),
        // In a chat, and in a group: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
        "telegram" => limits(Scope::Channel, const { &[rate(1, 1), rate(20, 60)] }),
        _ => limits(Scope::Provider, &[]),
    }
}

/// At most so many in so many seconds.
const fn rate(count: u32, seconds: u64) -> RateLimit {
    RateLimit {
        count,
        per: Duration::from_secs(seconds),
    }
}

/// The limits of a Provider: its own, else those of its type.
pub fn rates(provider: &ResolvedProvider) -> Arc<[RateLimit]> {
    match provider.rate_limit {
        Some(rate) => Arc::new([rate]),
        None => of_type(provider.kind.name).rates.into(),
    }
}

/// The key of the record in the bucket `limits` that the slots of a destination come from. A limit
/// that a Provider sets is not for the others that use its account.
pub fn key(provider: &ResolvedProvider, destination: &Destination) -> String {
    let scope = of_type(provider.kind.name).scope;
    let parts = match scope {
        Scope::Channel => {
            vec![
                "channel",
                &provider.namespace,
                &provider.name,
                destination.channel.as_deref().unwrap_or_default(),
            ]
        }
        Scope::Account if provider.rate_limit.is_none() => {
            let host = repository_host(provider);
            return format!(
                "slots.{}",
                id::digest(&["account", &host, account(provider)])
            );
        }
        Scope::Provider | Scope::Account => vec!["provider", &provider.namespace, &provider.name],
    };
    format!("slots.{}", id::digest(&parts))
}

/// When what was planned then is given up.
pub fn end(planned_at: Option<ProtoTimestamp>, provider: &ResolvedProvider) -> Option<Timestamp> {
    from_proto(planned_at).map(|planned| after(planned, provider.retry.max_age))
}

/// What the service knows the account by.
fn account(provider: &ResolvedProvider) -> &str {
    let keys = ["githubAppID", "token", "username"];
    keys.into_iter()
        .find_map(|key| provider.secret.text(key))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{provider, secret};

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
    fn providers_with_the_same_credentials_at_a_forge_share_its_limits() {
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
    fn every_limit_is_of_a_type_that_there_is() {
        let kinds = [
            "bitbucket",
            "discord",
            "github",
            "githubdispatch",
            "githubpullrequestcomment",
            "gitlabmergerequestcomment",
        ];
        let more = [
            "googlechat",
            "lark",
            "msteams",
            "pagerduty",
            "slack",
            "telegram",
        ];
        let limited: Vec<&str> = crate::notifier::PROVIDERS
            .iter()
            .map(|row| row.kind)
            .filter(|kind| !of_type(kind).rates.is_empty())
            .collect();
        assert_eq!(limited, [kinds.as_slice(), more.as_slice()].concat());
    }

    #[test]
    fn chats_are_limited_by_channel_and_other_types_by_provider() {
        let slack = provider("slack", |_| ());
        assert_ne!(key_of(&slack, "#a"), key_of(&slack, "#b"));
        let pagerduty = provider("pagerduty", |_| ());
        assert_eq!(key_of(&pagerduty, "a"), key_of(&pagerduty, "b"));
    }

    #[test]
    fn a_providers_own_limit_takes_the_place_of_its_types() {
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
