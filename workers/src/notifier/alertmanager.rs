//! `alertmanager`: one firing alert for each event.
//!
//! Contract: Prometheus Alertmanager's API v2, `POST /api/v2/alerts` (the address is the whole
//! path). Info events fire too, with that severity as a label. As in Flux, an alert is resolved
//! only by Alertmanager's own `resolve_timeout`. The same alert posted twice is one alert, so a
//! retry after a lost response does no harm.
//!
//! Alertmanager answers 400 for invalid alerts (before version 0.27, label names outside
//! `[a-zA-Z_][a-zA-Z0-9_]*`), which is permanent by the shared table. It has no size limits.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider, SecretData};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "alertmanager",
    family: Family::Message,
    summary: "Prometheus Alertmanager, a firing alert for each event",
    needs: &[
        Need::field(
            "address",
            Required,
            "the full URL: https://HOST/api/v2/alerts/",
            "https://alertmanager.example.com/api/v2/alerts/",
        ),
        Need::key(
            "username",
            Optional,
            "for basic authentication, with password",
            "",
        ),
        Need::key("password", Optional, "with username", ""),
        Need::key(
            "token",
            Optional,
            "a bearer token, if Alertmanager needs one",
            "your-token",
        ),
    ],
    cut_at: "100 MiB",
    sent_twice: "one alert",
    build,
    confirmation: Confirmation::Status,
    mentions: Mentions::none(
        "labels and annotations, for which Alertmanager's routes decide who is notified",
    ),
    size_limits: SizeLimits {
        source: "https://grafana.com/docs/mimir/latest/configure/configuration-parameters/",
        body: BodyLimit::AtMost(SizeUnit::Bytes, 100 << 20),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

struct Alertmanager {
    http: Http,
    url: Url,
    secret: SecretData,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, String>,
    annotations: BTreeMap<&'static str, &'a str>,
    starts_at: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Alertmanager {
        http,
        url,
        secret: provider.secret.clone(),
    })))
}

#[async_trait]
impl SendMessage for Alertmanager {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &[alert(message)]);
        let request = match (self.secret.basic(), self.secret.token()) {
            (Some((username, password)), _) => request.basic(username, password),
            (None, Some(token)) => request.bearer(token),
            (None, None) => request,
        };
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn alert<'a>(message: &'a Message<'_>) -> Alert<'a> {
    let (event, object) = (message.event, message.object);
    let metadata = message.metadata.iter().filter(|(key, _)| *key != "summary");
    let mut labels: BTreeMap<&str, String> = metadata
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    labels.extend(present([
        (
            "alertname",
            format!("Flux{}{}", object.kind, title_case(&event.reason)),
        ),
        ("severity", event.severity.clone()),
        ("reason", event.reason.clone()),
        ("kind", object.kind.clone()),
        ("name", object.name.clone()),
        ("namespace", object.namespace.clone()),
        ("reportingcontroller", event.reporting_controller.clone()),
    ]));
    labels.extend(message.cluster_field());
    let mut annotations = BTreeMap::from([("message", message.text())]);
    annotations.extend(
        message
            .metadata
            .get("summary")
            .map(|summary| ("summary", summary.as_str())),
    );
    annotations.extend(
        message
            .rendered
            .title
            .as_ref()
            .map(|title| ("title", title.as_str())),
    );
    annotations.extend(
        message
            .links()
            .iter()
            .map(|link| (link.key, link.url.as_str())),
    );
    Alert {
        status: "firing",
        labels,
        annotations,
        starts_at: message.rfc3339(),
    }
}

/// Each word with a capital first and the rest in lower case. Users' rules name alerts in this
/// form.
///
/// Words consist of alphabetic characters, digits and underscores. A single `'`, `.` or `:` does
/// not end one (Unicode's annex 29, as far as reasons need it).
fn title_case(text: &str) -> String {
    let is_joint = |character: char| matches!(character, '\'' | '.' | ':');
    let mut title = String::with_capacity(text.len());
    let (mut in_word, mut after_joint) = (false, false);
    for character in text.chars() {
        in_word &= character.is_alphanumeric()
            || character == '_'
            || (is_joint(character) && !after_joint);
        after_joint = is_joint(character);
        if !character.is_alphabetic() {
            title.push(character);
        } else if in_word {
            title.extend(character.to_lowercase());
        } else {
            title.extend(character.to_uppercase());
            in_word = true;
        }
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample};

    #[tokio::test]
    async fn an_event_becomes_a_firing_alert() {
        let provider = sample::provider("alertmanager", |_| {});
        let request = sample::request(&TYPE, &provider, &Sample::error()).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://hooks.example.com/path
        content-type: application/json

        [
          {
            "status": "firing",
            "labels": {
              "alertname": "FluxKustomizationHealthcheckfailed",
              "cluster": "prod-1",
              "kind": "Kustomization",
              "name": "webapp",
              "namespace": "apps",
              "reason": "HealthCheckFailed",
              "reportingcontroller": "kustomize-controller",
              "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
              "severity": "error"
            },
            "annotations": {
              "message": "Health check failed after 30s\nDeployment/web: not ready",
              "summary": "Production is affected"
            },
            "startsAt": "2026-03-14T09:26:53Z"
          }
        ]
        "#);
    }

    #[tokio::test]
    async fn labels_of_the_event_take_precedence_over_metadata() {
        let mut event = Sample::info();
        event.metadata.insert("namespace".into(), "zz".into());
        let provider = sample::provider("alertmanager", |_| {});
        let body = sample::body(&sample::request(&TYPE, &provider, &event).await);
        assert_eq!(body[0]["labels"]["namespace"], "apps");
        assert_eq!(body[0]["labels"].get("summary"), None);
    }

    #[tokio::test]
    async fn a_password_takes_precedence_over_a_token() {
        for (secret, expected) in [
            (vec![], None),
            (vec![("token", "t")], Some("Bearer t")),
            (
                vec![("token", "t"), ("username", "u"), ("password", "p")],
                Some("Basic dTpw"),
            ),
        ] {
            let provider = sample::provider("alertmanager", |provider| {
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

    #[test]
    fn words_of_a_reason_start_with_a_capital() {
        for (reason, expected) in [
            ("BuildFailed", "Buildfailed"),
            ("healthCheckFailed_twice now", "Healthcheckfailed_twice Now"),
            ("half-done", "Half-Done"),
            ("a.b it's x..y", "A.b It's X..Y"),
            ("2fast", "2Fast"),
            ("", ""),
        ] {
            assert_eq!(title_case(reason), expected);
        }
    }
}
