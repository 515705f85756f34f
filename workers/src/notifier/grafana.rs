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

use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use tidings_rules::template::Escape;

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
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("message", Is::Present)]),
    content: Content::Text(Escape::Entities),
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
    let object = message.object;
    let mut tags = vec![
        "flux".to_owned(),
        message.event.reporting_controller.clone(),
    ];
    tags.extend(
        message
            .fields()
            .map(|(key, value)| format!("{}: {}", key.replace(':', "|"), value.replace(':', "|"))),
    );
    tags.extend([
        format!("kind: {}", object.kind),
        format!("name: {}", object.name),
        format!("namespace: {}", object.namespace),
    ]);
    json!({ "when": message.unix_seconds(), "text": text(message), "tags": tags })
}

/// The annotation as HTML, which Grafana shows: title, the template's text, links.
fn text(message: &Message<'_>) -> String {
    let mut text = if message.is_templated() {
        message.titled_text()
    } else {
        message.object_heading()
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
