//! Compares Tidings with recordings of notification-controller 1.9.3.
//!
//! `wire` compares the requests of `tidings test --send`, `dry_run` and `patterns` the output of
//! `tidings test`, `ingest` the responses of the event endpoint, and `pipeline` the
//! requests after an event is posted. README.md describes the format of the recordings in `data/`.

mod body;
mod case;
mod compare;
mod dry_run;
mod ingest;
mod otlp;
mod patterns;
mod pipeline;
mod report;
mod run;
mod script;
mod sink;
mod wire;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");

/// A test for each provider type.
macro_rules! wire {
    ($($test:ident: $kind:literal,)*) => {
        /// The recorded types. Types with another protocol than HTTP have no recorded requests.
        const RECORDED_TYPES: &[&str] = &["nats", "googlepubsub", "azureeventhub", $($kind),*];

        mod requests_are_as_recorded_for {
            $(
                #[tokio::test]
                async fn $test() {
                    crate::wire::replay($kind).await;
                }
            )*
        }
    };
}

wire! {
    alertmanager: "alertmanager",
    azuredevops: "azuredevops",
    bitbucket: "bitbucket",
    bitbucketserver: "bitbucketserver",
    datadog: "datadog",
    discord: "discord",
    generic: "generic",
    generic_hmac: "generic-hmac",
    gitea: "gitea",
    giteapullrequestcomment: "giteapullrequestcomment",
    github: "github",
    githubdispatch: "githubdispatch",
    githubpullrequestcomment: "githubpullrequestcomment",
    gitlab: "gitlab",
    gitlabmergerequestcomment: "gitlabmergerequestcomment",
    googlechat: "googlechat",
    grafana: "grafana",
    incident_io: "incident.io",
    lark: "lark",
    matrix: "matrix",
    msteams: "msteams",
    opsgenie: "opsgenie",
    otel: "otel",
    pagerduty: "pagerduty",
    rocket: "rocket",
    sentry: "sentry",
    slack: "slack",
    telegram: "telegram",
    webex: "webex",
    zoom: "zoom",
    zulip: "zulip",
}

/// A pipeline test for each of these types.
macro_rules! pipeline {
    ($($test:ident: $kind:literal,)*) => {
        mod requests_of_the_pipeline_are_as_recorded_for {
            $(
                #[tokio::test]
                async fn $test() {
                    crate::pipeline::replay($kind).await;
                }
            )*
        }
    };
}

pipeline! {
    azuredevops: "azuredevops",
    bitbucket: "bitbucket",
    bitbucketserver: "bitbucketserver",
    gitea: "gitea",
    github: "github",
    gitlab: "gitlab",
}

#[tokio::test]
async fn alerts_match_and_combine_metadata_as_recorded() {
    dry_run::replay("matching").await;
}

#[tokio::test]
async fn commits_are_read_from_revisions_as_recorded() {
    dry_run::replay("revisions").await;
}

#[tokio::test]
async fn hosts_and_repositories_are_read_from_git_addresses_as_recorded() {
    dry_run::replay("git_addresses").await;
}

#[tokio::test]
async fn commit_statuses_are_described_as_recorded() {
    dry_run::replay("descriptions").await;
}

#[tokio::test]
async fn commit_statuses_have_the_recorded_ids() {
    dry_run::replay("default_status_ids").await;
}

#[tokio::test]
async fn expressions_return_the_recorded_commit_status_ids() {
    dry_run::replay("status_id_expressions").await;
}

#[tokio::test]
async fn regular_expressions_match_as_recorded() {
    patterns::replay().await;
}

#[tokio::test]
async fn the_event_endpoint_responds_and_delivers_as_recorded() {
    ingest::replay().await;
}
