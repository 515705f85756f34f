//! Checks the channel of a Provider or an Alert before the first message: prepares a sample message
//! as for an attempt, and sends nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;
use tidings_core::{Failure, FailureKind, Reason};
use tidings_rules::{Family, ResolvedProvider};

use super::contract::Notifier;
use crate::attempt::{Prepared, prepare};
use crate::http::Http;
use crate::message::Message;
use crate::message::template_check::{sample_alert, samples};

/// The problem of a channel; `None` if the type can send to it. The empty channel is that of the
/// Provider.
pub fn check(provider: &Arc<ResolvedProvider>, channel: &str) -> Option<String> {
    // Commit statuses have no channel, and their expressions are checked on their own.
    if provider.kind.family == Family::CommitStatus {
        return None;
    }
    let channel = match (provider.secret_channel(), channel) {
        (Some(channel), _) => channel,
        (None, "") => &provider.channel,
        (None, channel) => channel,
    };
    let key = provider.kind.channel_key;
    if !key.is_empty() && channel.is_empty() {
        return Some(format!(
            "no {key}: set the key {key} in the Secret of spec.secretRef, or spec.channel"
        ));
    }
    // A Provider that cannot be prepared has a problem of its own.
    let prepared = prepare(provider.clone(), |_| Ok(Http::dry_run())).ok()?;
    let alert = sample_alert();
    // Comments need the number of a change request.
    let metadata = BTreeMap::from([("change_request".to_owned(), "1".to_owned())]);
    let samples = samples(&[], &metadata);
    let failures = samples
        .iter()
        .map(|sample| failure(&prepared, &sample.message(&alert, channel)));
    // An event may lack what another one has.
    let all: Option<Vec<String>> = failures.collect();
    all?.into_iter().next()
}

/// Why the type cannot send the message; `None` if it can, or if a retry can help.
fn failure(prepared: &Prepared, message: &Message<'_>) -> Option<String> {
    let work = || match &prepared.notifier {
        // Nothing is awaited without a network.
        Notifier::Message(notifier) => notifier.send(message).now_or_never()?.err(),
        Notifier::State(notifier) => notifier.desire(message).now_or_never()?.err(),
    };
    let failure = catch_unwind(AssertUnwindSafe(work)).ok().flatten()?;
    let Failure { kind, reason, .. } = &failure;
    let is_certain = *kind == FailureKind::Permanent && *reason == Reason::Misconfigured;
    is_certain.then(|| prepared.redacted(failure).detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample::{provider, secret};

    fn checked(kind: &'static str, keys: &[(&str, &str)], own: &str, of_alert: &str) -> bool {
        let provider = provider(kind, |provider| {
            provider.secret = secret(keys);
            provider.channel = own.to_owned();
            match kind {
                "azureeventhub" => provider.address = "hub".to_owned(),
                "nats" => provider.address = "nats://h:4222".to_owned(),
                _ => provider.address = "https://h/acme/deploy".to_owned(),
            }
        });
        check(&Arc::new(provider), of_alert).is_none()
    }

    #[test]
    fn a_channel_that_the_type_cannot_use_is_found() {
        let token: &[_] = &[("token", "a-token")];
        for (kind, keys, channel) in [
            ("telegram", token, "@team"),
            ("matrix", token, "!room:h"),
            ("nats", &[], "events"),
            ("zulip", &[], "channel/topic"),
            ("azureeventhub", token, "namespace"),
            ("pagerduty", &[("routingKey", "")], "routing-key"),
            ("pagerduty", &[], "routing-key"),
        ] {
            assert!(!checked(kind, keys, "", ""), "{kind} without a channel");
            assert!(checked(kind, keys, channel, ""), "{kind}: the Provider's");
            assert!(checked(kind, keys, "", channel), "{kind}: the Alert's");
        }
        assert!(checked("pagerduty", &[("routingKey", "key")], "", ""));
        assert!(!checked("zulip", &[], "notopic", ""));
        assert!(!checked("zulip", &[], "channel/topic", "notopic"));
        assert!(!checked("azureeventhub", token, "no host", ""));
    }

    #[test]
    fn a_type_that_needs_no_channel_passes_without_one() {
        let token: &[_] = &[("token", "a-token")];
        let needing = [
            "azureeventhub",
            "matrix",
            "nats",
            "pagerduty",
            "telegram",
            "zulip",
        ];
        for row in crate::notifier::PROVIDERS {
            let passes = checked(row.kind, token, "", "");
            assert_eq!(passes, !needing.contains(&row.kind), "{}", row.kind);
        }
    }
}
