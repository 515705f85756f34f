//! One file for each provider type, and the table of them all.
//!
//! A notifier sends once. It never sleeps, loops, retries or logs: what an answer means is told in
//! a [`Failure`], and when to try again is decided elsewhere.

use std::sync::LazyLock;

use tidings_rules::{Kind, Kinds, ResolvedProvider};

use contract::ProviderType;

mod alertmanager;
mod azuredevops;
mod azureeventhub;
mod bitbucket;
mod bitbucketserver;
pub mod contract;
mod datadog;
mod discord;
pub(crate) mod forge;
mod generic;
mod generic_hmac;
mod gitea;
mod giteapullrequestcomment;
mod github;
mod githubdispatch;
mod githubpullrequestcomment;
mod gitlab;
mod gitlabmergerequestcomment;
mod googlechat;
mod googlepubsub;
mod grafana;
mod incident_io;
mod lark;
mod matrix;
mod msteams;
mod nats;
mod opsgenie;
mod otel;
mod pagerduty;
mod payload;
mod rocket;
#[cfg(test)]
pub(crate) mod sample;
mod sentry;
mod slack;
mod telegram;
mod webex;
mod zoom;
mod zulip;

/// All provider types. The CRD's enum, help texts, consumers and contract tests derive from this
/// table.
pub const PROVIDERS: &[&ProviderType] = &[
    &alertmanager::TYPE,
    &azuredevops::TYPE,
    &azureeventhub::TYPE,
    &bitbucket::TYPE,
    &bitbucketserver::TYPE,
    &datadog::TYPE,
    &discord::TYPE,
    &generic::TYPE,
    &generic_hmac::TYPE,
    &gitea::TYPE,
    &giteapullrequestcomment::TYPE,
    &github::TYPE,
    &githubdispatch::TYPE,
    &githubpullrequestcomment::TYPE,
    &gitlab::TYPE,
    &gitlabmergerequestcomment::TYPE,
    &googlechat::TYPE,
    &googlepubsub::TYPE,
    &grafana::TYPE,
    &incident_io::TYPE,
    &lark::TYPE,
    &matrix::TYPE,
    &msteams::TYPE,
    &nats::TYPE,
    &opsgenie::TYPE,
    &otel::TYPE,
    &pagerduty::TYPE,
    &rocket::TYPE,
    &sentry::TYPE,
    &slack::TYPE,
    &telegram::TYPE,
    &webex::TYPE,
    &zoom::TYPE,
    &zulip::TYPE,
];

/// The table as rules know it.
pub fn kinds() -> Kinds {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        PROVIDERS
            .iter()
            .map(|row| Kind {
                name: row.kind,
                family: row.family,
            })
            .collect()
    });
    &KINDS
}

/// The host of a forge's Provider; empty where its address names none.
pub(crate) fn repository_host(provider: &ResolvedProvider) -> String {
    crate::message::repository::repository(provider)
        .map(|repository| repository.host().to_owned())
        .unwrap_or_default()
}
