//! `generic`: the event as JSON to any webhook.
//!
//! Contract: Flux's notification API, "generic webhook". The request carries `Idempotency-Key:
//! <delivery id>`, so that a receiver recognizes a retry after a lost response.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use tidings_core::Failure;
use tidings_core::model::flux;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "generic",
    family: Family::Generic,
    summary: "any webhook, the event as JSON",
    needs: &[
        Need::field(
            "address",
            Required,
            "any http or https address",
            "https://hooks.example.com/flux",
        ),
        Need::key(
            "headers",
            Optional,
            "more headers, as a YAML map",
            "Authorization: Bearer your-token\n",
        ),
        CLUSTER_FIELD,
    ],
    cut_at: "none",
    sent_twice: "the receiver recognizes it (`Idempotency-Key`)",
    build,
    confirmation: Confirmation::Status,
    content: Content::Event,
    own_headers: &["idempotency-key", CLUSTER_HEADER],
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://fluxcd.io/flux/components/notification/providers/#generic-webhook",
        body: BodyLimit::Unlimited("the receiver is your own"),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

/// The header with the cluster's name. `default` has none.
pub(super) const CLUSTER_HEADER: &str = "tidings-cluster";

/// The option of types that send the event as JSON and name the cluster beside it.
pub(super) const CLUSTER_FIELD: Need = Need::field(
    "clusterField",
    Optional,
    "also name the cluster in the JSON, as `metadata.cluster`",
    "",
);

struct Generic {
    http: Http,
    url: Url,
    cluster_field: bool,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Generic {
        http,
        url,
        cluster_field: provider.cluster_field,
    })))
}

#[async_trait]
impl SendMessage for Generic {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let body = event_body(message, self.cluster_field);
        let request = event_request(self.url.clone(), message, body);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

/// The body of `generic` and `generic-hmac`.
pub(super) fn event_body(message: &Message<'_>, cluster_field: bool) -> Vec<u8> {
    flux::to_json(message.event, &metadata(message, cluster_field))
}

/// The metadata of the event, with the cluster's name if the Provider asks for it.
pub(super) fn metadata<'a>(
    message: &Message<'a>,
    cluster_field: bool,
) -> Cow<'a, BTreeMap<String, String>> {
    match cluster_field {
        true => message.metadata_with_cluster(),
        false => Cow::Borrowed(message.metadata),
    }
}

/// The request of `generic` and `generic-hmac`.
pub(super) fn event_request(url: Url, message: &Message<'_>, body: Vec<u8>) -> Request {
    let request = Request::new(reqwest::Method::POST, url)
        .body("application/json", body)
        .header("gotk-component", &message.event.reporting_controller)
        .header("idempotency-key", message.delivery_id);
    match message.cluster_header() {
        Some(cluster) => request.header(CLUSTER_HEADER, &cluster),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample};
    use super::*;

    #[tokio::test]
    async fn the_event_is_sent_as_json_with_the_secrets_headers() {
        let provider = sample::provider("generic", |provider| {
            provider.headers = [("X-Team", "a"), ("gotk-component", "mine")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        });
        let request = sample::request(&TYPE, &provider, &Sample::info()).await;
        let header = |name| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        assert_eq!(header("x-team"), Some("a"));
        assert_eq!(header("gotk-component"), Some("mine"));
        assert_eq!(header("idempotency-key"), Some("delivery-1"));
        assert_eq!(sample::body(&request)["involvedObject"]["name"], "webapp");
        assert_eq!(sample::body(&request)["metadata"]["cluster"], "prod-1");
    }
}
