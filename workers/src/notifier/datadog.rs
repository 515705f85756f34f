//! `datadog`: one Datadog event for each event.
//!
//! Contract: Datadog's API reference, "Post an event" (v1, `POST /api/v1/events`), which limits the
//! text to 4,000 characters, and its "Getting Started with Tags", which limits a tag to 200.
//! It documents no number of tags; 100 bound the body. Only scheme and host of the address are
//! used.
//! Datadog rejects events older than 18 hours, so an event that waits longer becomes a dead letter.
//! A
//! retry after a lost response posts twice.
//!
//! The shared table covers the statuses: 403 is a wrong API key, and 408 and 429 are retried.

use async_trait::async_trait;
use reqwest::header::HeaderName;
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{AT_NAME, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::{at_path, http_url};
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;
use crate::text::cut_chars;

const MOST_OF_A_TEXT: usize = 4_000;
const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "datadog",
    family: Family::Message,
    summary: "Datadog, an event for each event",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://api.datadoghq.com, or that of another site",
            "https://api.datadoghq.com",
        ),
        Need::key("token", Required, "the API key", "your-token"),
    ],
    cut_at: "title 100, text 4,000, tag 200",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("status", Is::Text("ok"))]),
    mentions: Mentions::of(
        "https://docs.datadoghq.com/monitors/notify/#notifications",
        &[AT_NAME],
    ),
    size_limits: SizeLimits {
        source: "https://docs.datadoghq.com/api/latest/events/",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::characters("/title", 100),
            SizeLimit::characters("/text", MOST_OF_A_TEXT),
            SizeLimit::id("/tags/*", 200),
            SizeLimit::items("/tags", 100),
        ],
    },
    ..ProviderType::DEFAULT
};

struct Datadog {
    http: Http,
    url: Url,
    token: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = at_path(&http_url(provider)?, "/api/v1/events");
    let token = provider
        .secret
        .token()
        .ok_or("no API key: set the key token in the Secret of spec.secretRef")?
        .to_owned();
    Ok(Notifier::Message(Box::new(Datadog { http, url, token })))
}

#[async_trait]
impl SendMessage for Datadog {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(
            self.url.clone(),
            &TYPE.size_limits.applied_to(event(message)),
        )
        .header("accept", "application/json")
        .secret_header(API_KEY, &self.token);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn event(message: &Message<'_>) -> Value {
    let object = message.object;
    let standard_title = || {
        format!(
            "Events from the {} {}/{}",
            object.kind, object.name, object.namespace
        )
    };
    let links: String = message
        .links()
        .iter()
        .map(|link| format!("\n{}: {}", link.label, link.url))
        .collect();
    json!({
        "title": message.title_or(standard_title),
        "text": cut_chars(message.text(), MOST_OF_A_TEXT - links.chars().count()) + &links,
        "source_type_name": "fluxcd",
        "date_happened": message.unix_seconds(),
        "alert_type": if message.is_error() { "error" } else { "info" },
        "tags": tags(message),
    })
}

/// The tags, in lower case because Datadog converts them anyway.
fn tags(message: &Message<'_>) -> Vec<String> {
    let (event, object) = (message.event, message.object);
    let own = [
        (
            "flux_reporting_controller",
            event.reporting_controller.as_str(),
        ),
        ("flux_reason", &event.reason),
        ("kube_kind", &object.kind),
        ("kube_name", &object.name),
        ("kube_namespace", &object.namespace),
    ];
    let cluster = message.cluster_field();
    let cluster = cluster.as_ref().map(|(key, value)| (*key, value.as_str()));
    present(own)
        .chain(cluster)
        .chain(message.fields())
        .map(|(key, value)| format!("{key}:{value}").to_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample};

    fn provider() -> ResolvedProvider {
        sample::provider("datadog", |provider| {
            provider.address = "https://api.datadoghq.eu/some/path?x=1".into();
            provider.secret = sample::secret(&[("token", "ddkey")]);
        })
    }

    #[tokio::test]
    async fn a_flux_event_becomes_a_datadog_event() {
        let request = sample::request(&TYPE, &provider(), &Sample::error()).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://api.datadoghq.eu/api/v1/events
        accept: application/json
        content-type: application/json
        dd-api-key: ddkey (secret)

        {
          "title": "Events from the Kustomization webapp/apps",
          "text": "Health check failed after 30s\nDeployment/web: not ready",
          "source_type_name": "fluxcd",
          "date_happened": 1773480413,
          "alert_type": "error",
          "tags": [
            "flux_reporting_controller:kustomize-controller",
            "flux_reason:healthcheckfailed",
            "kube_kind:kustomization",
            "kube_name:webapp",
            "kube_namespace:apps",
            "summary:production is affected",
            "cluster:prod-1",
            "revision:main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291"
          ]
        }
        "#);
    }

    #[tokio::test]
    async fn a_long_text_is_cut() {
        let request = sample::request(
            &TYPE,
            &provider(),
            &Sample::info().with_message("ä".repeat(5_000)),
        )
        .await;
        assert_eq!(
            sample::body(&request)["text"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            4_000
        );
    }

    #[test]
    fn without_an_api_key_the_provider_is_invalid() {
        let provider = sample::provider("datadog", |_| {});
        assert!(sample::build_error(&TYPE, &provider).contains("token"));
    }
}
