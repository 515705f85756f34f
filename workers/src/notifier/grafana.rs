//! `grafana`: one annotation for each event.
//!
//! Contract: Grafana's "Annotations HTTP API", `POST /api/annotations` (the address is the whole
//! path). The annotation names the object and has the metadata as tags. As in Flux, the event's
//! message is not sent, but a template's text is. A colon separates a tag's name from its value, so
//! colons inside are written as `|`. A retry after a lost response annotates twice.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider, SecretData};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::render::Content;
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::JSON_BYTES;
use crate::text::cut_id;
use tidings_rules::template::Escape;

/// In bytes of the list in JSON. Administrators can raise it (`tags_length`).
const MOST_OF_ALL_TAGS: usize = 500;
/// The longest name or value of a tag, in characters.
const LONGEST_TAG: usize = 100;
/// What a tag needs in the list besides its text: quotes and a comma.
const AROUND_A_TAG: usize = 3;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "grafana",
    family: Family::Message,
    summary: "Grafana, an annotation for each event",
    needs: &[
        Need::field(
            "address",
            Required,
            "the full URL: https://HOST/api/annotations",
            "https://grafana.example.com/api/annotations",
        ),
        Need::key("token", Optional, "a service account's token", "your-token"),
        Need::key("username", Optional, "in place of token, with password", ""),
        Need::key("password", Optional, "with username", ""),
    ],
    cut_at: "tags 500, text 65,535 bytes",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("id", Is::Present), ("message", Is::Present)]),
    content: Content::Text(Escape::Entities),
    mentions: Mentions::none("an annotation notifies nobody"),
    size_limits: SizeLimits {
        source: "https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/#tags_length",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::bytes("/tags", MOST_OF_ALL_TAGS),
            SizeLimit::bytes("/text", 65_535),
        ],
    },
    ..ProviderType::DEFAULT
};

struct Grafana {
    http: Http,
    url: Url,
    secret: SecretData,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Grafana {
        http,
        url,
        secret: provider.secret.clone(),
    })))
}

#[async_trait]
impl SendMessage for Grafana {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &annotation(message));
        let request = match (self.secret.token(), self.secret.basic()) {
            (Some(token), _) => request.bearer(token),
            (None, Some((username, password))) => request.basic(username, password),
            (None, None) => request,
        };
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn annotation(message: &Message<'_>) -> Value {
    let body =
        json!({ "when": message.unix_seconds(), "text": text(message), "tags": tags(message) });
    TYPE.size_limits.applied_to(body)
}

/// The tags. If there are too many, the last ones of the metadata are dropped, or all that names
/// the object does not leave room for.
fn tags(message: &Message<'_>) -> Vec<String> {
    let (event, object) = (message.event, message.object);
    let first = ["flux", &event.reporting_controller].map(|tag| cut_id(tag, LONGEST_TAG));
    let first = first.into_iter().filter(|tag| !tag.is_empty());
    let first: Vec<String> = first.collect();
    let last = [
        ("kind", &object.kind),
        ("name", &object.name),
        ("namespace", &object.namespace),
    ];
    let last: Vec<String> = present(last).map(|(key, value)| tag(key, value)).collect();
    let size = |tag: &String| (JSON_BYTES.size)(tag) + AROUND_A_TAG;
    let taken: usize = first.iter().chain(&last).map(size).sum();
    // The brackets need one byte more than the missing comma.
    let mut room = MOST_OF_ALL_TAGS.saturating_sub(taken + 1);
    let fits = |tag: &String| {
        let left = room.checked_sub(size(tag));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let cluster = message.cluster_field();
    let cluster = cluster.as_ref().map(|(key, value)| (*key, value.as_str()));
    let fields = cluster.into_iter().chain(message.fields());
    let fields = fields.map(|(key, value)| {
        let [key, value] = [key, value].map(|text| text.replace(':', "|"));
        tag(&key, &value)
    });
    let fields: Vec<String> = fields.take_while(fits).collect();
    first.into_iter().chain(fields).chain(last).collect()
}

fn tag(key: &str, value: &str) -> String {
    let [key, value] = [key, value].map(|text| cut_id(text, LONGEST_TAG));
    format!("{key}: {value}")
}

/// The annotation as HTML, which Grafana shows: title, the template's text, links.
fn text(message: &Message<'_>) -> String {
    let mut text = if message.is_templated() {
        message.titled_text()
    } else {
        message.title()
    };
    for link in message.links() {
        let url = Escape::Entities.apply(&link.url).replace('"', "%22");
        text += &format!("\n<a href=\"{url}\">{}</a>", link.label);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample};

    #[tokio::test]
    async fn an_event_becomes_an_annotation() {
        let provider = sample::provider("grafana", |provider| {
            provider.secret = sample::secret(&[("token", "glsa")])
        });
        let request = sample::request(&TYPE, &provider, &Sample::info()).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://hooks.example.com/path
        authorization: Bearer glsa (secret)
        content-type: application/json

        {
          "when": 1773480413,
          "text": "kustomization/webapp.apps",
          "tags": [
            "flux",
            "kustomize-controller",
            "summary: Production is affected",
            "cluster: prod-1",
            "revision: main@sha1|8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
            "kind: Kustomization",
            "name: webapp",
            "namespace: apps"
          ]
        }
        "#);
    }

    #[tokio::test]
    async fn a_token_takes_precedence_over_a_password() {
        for (secret, expected) in [
            (vec![], None),
            (
                vec![("username", "au"), ("password", "a:p")],
                Some("Basic YXU6YTpw"),
            ),
            (
                vec![("token", "t"), ("username", "u"), ("password", "p")],
                Some("Bearer t"),
            ),
        ] {
            let provider = sample::provider("grafana", |provider| {
                provider.secret = sample::secret(&secret)
            });
            let request = sample::request(&TYPE, &provider, &Sample::info()).await;
            assert_eq!(
                request
                    .headers
                    .get("authorization")
                    .map(|value| value.to_str().unwrap()),
                expected
            );
        }
    }
}
