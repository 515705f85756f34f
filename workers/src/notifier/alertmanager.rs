//! `alertmanager`: one firing alert for each event.
//!
//! Contract: Prometheus Alertmanager's API v2, `POST /api/v2/alerts` (the address is the whole
//! path). Info events fire too, with that severity as a label, and nothing resolves an alert but
//! Alertmanager's own `resolve_timeout`, as in Flux. The same alert posted twice is one alert
//! there, so a retry after a lost response does no harm.
//!
//! Alertmanager responses 400 to alerts that it can't read (label names http_clients
//! `[a-zA-Z_][a-zA-Z0-9_]*` before version 0.27); that is final, as the shared table has it. It has
//! no limit on sizes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider, SecretData};
use url::Url;

use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
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
            "the whole path: https://HOST/api/v2/alerts/",
            "https://alertmanager.example.com/api/v2/alerts/",
        ),
        Need::key(
            "username",
            Optional,
            "where Alertmanager asks for one, with password",
            "",
        ),
        Need::key("password", Optional, "with username", ""),
        Need::key(
            "token",
            Optional,
            "a bearer token, where Alertmanager asks for one",
            "your-token",
        ),
    ],
    sent_twice: "one alert",
    build,
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
    labels.extend([
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
    ]);
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

/// The first letter of each word as a capital, all others small. Users' rules name alerts in this
/// form.
///
/// Letters, digits and underscores make words; a single `'`, `.` or `:` does not end one (Unicode's
/// annex 29, as far as reasons go).
fn title_case(text: &str) -> String {
    let is_joint = |letter: char| matches!(letter, '\'' | '.' | ':');
    let mut title = String::with_capacity(text.len());
    let (mut in_word, mut after_joint) = (false, false);
    for letter in text.chars() {
        in_word &= letter.is_alphanumeric() || letter == '_' || (is_joint(letter) && !after_joint);
        after_joint = is_joint(letter);
        if !letter.is_alphabetic() {
            title.push(letter);
        } else if in_word {
            title.extend(letter.to_lowercase());
        } else {
            title.extend(letter.to_uppercase());
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
    async fn labels_of_the_event_go_before_metadata_of_the_same_name() {
        let mut event = Sample::info();
        event.metadata.insert("namespace".into(), "zz".into());
        let provider = sample::provider("alertmanager", |_| {});
        let body = sample::body(&sample::request(&TYPE, &provider, &event).await);
        assert_eq!(body[0]["labels"]["namespace"], "apps");
        assert_eq!(body[0]["labels"].get("summary"), None);
    }

    #[tokio::test]
    async fn a_password_goes_before_a_token() {
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
    fn words_of_a_reason_begin_with_a_capital() {
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
