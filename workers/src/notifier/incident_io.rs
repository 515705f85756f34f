//! `incident.io`: a failure fires an alert for its object, and a success resolves it. Other events
//! send nothing.
//!
//! Contract: incident.io's API reference, "Alert Events V2", Create HTTP (the address is that of
//! the alert source). Only the newest state of an object counts, so that a retried alert never
//! outlives its resolve. A retry after a lost response does no harm, since the service deduplicates
//! alerts by their key.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_core::model::id::digest;
use tidings_core::model::object_state::{self, ObjectState, ReasonStates};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit_body::{Fields, fit_json};
use crate::text::cut_chars;

/// In bytes. incident.io documents no number; this is what PagerDuty accepts, whose events it
/// receives too.
const LONGEST_BODY: usize = 512_000;
const LONGEST_TITLE: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "incident.io",
    family: Family::Incident,
    summary: "incident.io, an alert for each failing object",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://api.incident.io/v2/alert_events/http/SOURCE",
            "https://api.incident.io/v2/alert_events/http/01EXAMPLE",
        ),
        Need::key("token", Required, "the alert source's token", "your-token"),
    ],
    cut_at: "512 KB, title 255",
    sent_twice: "one alert",
    build,
    confirmation: Confirmation::JsonOrOk(&[("status", Is::Text("success"))]),
    most_links: 1,
    mentions: Mentions::none("the routes of the alert source decide who is notified"),
    size_limits: SizeLimits {
        source: "https://docs.incident.io/api-reference/alert-events-v2/create-http",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[
            SizeLimit::characters("/title", LONGEST_TITLE),
            SizeLimit::id("/deduplication_key", 255),
        ],
    },
    ..ProviderType::DEFAULT
};

struct IncidentIo {
    http: Http,
    url: Url,
    token: String,
    reason_states: ReasonStates,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// The event's time. The same failure at another time is sent again, since a user may have
    /// closed its alert.
    at: String,
    /// The key of the alert that a release without clusters in keys has opened. A success resolves
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former_key: Option<String>,
    /// The keys of the object under former names of its cluster. A success resolves their alerts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    renamed_keys: Vec<String>,
    /// The same as whole alerts, in records of earlier versions.
    #[serde(default, skip_serializing)]
    former: Option<Value>,
    #[serde(default, skip_serializing)]
    renamed: Vec<Value>,
    body: Value,
}

impl State {
    /// The alert with another key.
    fn with_key(&self, key: &str) -> Value {
        let mut other = self.body.clone();
        other["deduplication_key"] = key.into();
        other
    }
}

/// The handle of an object whose former key is resolved.
const FORMER_KEY_RESOLVED: &str = "former key resolved";

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    let token = provider
        .secret
        .token()
        .ok_or("no API token: set the key token in the Secret of spec.secretRef")?
        .to_owned();
    Ok(Notifier::State(Box::new(IncidentIo {
        http,
        url,
        token,
        reason_states: provider.reason_states.clone(),
    })))
}

#[async_trait]
impl KeepState for IncidentIo {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let state = object_state::with(message.event, &self.reason_states);
        if state.opposite().is_none() {
            return Ok(None);
        }
        let (host, object) = (
            self.url.host_str().unwrap_or_default(),
            message.object_key(),
        );
        // The path identifies the alert source, but may be secret.
        let key = format!(
            "incident.io {host} {} {object}",
            digest(&[self.url.as_str()])
        );
        let body = alert(message, state);
        let (former_key, renamed_keys) = match state {
            ObjectState::Success => other_keys(message, &object),
            _ => (None, Vec::new()),
        };
        let state = State {
            at: message.rfc3339(),
            former_key,
            renamed_keys,
            former: None,
            renamed: Vec::new(),
            body,
        };
        Ok(Some(DesiredState::new(key, &state)))
    }

    async fn read(&self, _desired: &DesiredState) -> Result<RemoteState, Failure> {
        Ok(RemoteState::Unknown)
    }

    async fn write(&self, desired: &DesiredState, handle: Option<&str>) -> Result<Sent, Failure> {
        let state: State = desired.decode()?;
        let mut handle = handle.map(str::to_owned);
        let former = state.former_key.as_ref().map(|key| state.with_key(key));
        let former = former.or(state.former.clone());
        if let Some(former) = former.filter(|_| handle.is_none()) {
            let request = Request::post_json(self.url.clone(), &former).bearer(&self.token);
            classify(&self.http.send(request).await?)?;
            handle = Some(FORMER_KEY_RESOLVED.to_owned());
        }
        let renamed = state.renamed_keys.iter().map(|key| state.with_key(key));
        for alert in renamed.chain(state.renamed.iter().cloned()) {
            let request = Request::post_json(self.url.clone(), &alert).bearer(&self.token);
            classify(&self.http.send(request).await?)?;
        }
        let request = Request::post_json(self.url.clone(), &state.body).bearer(&self.token);
        let status = Some(classify(&self.http.send(request).await?)?);
        Ok(Sent::Accepted { status, handle })
    }
}

/// The key of earlier releases, and those under former names of the cluster, where they differ from
/// the key and from each other.
fn other_keys(message: &Message<'_>, key: &str) -> (Option<String>, Vec<String>) {
    let mut renamed: Vec<String> = Vec::new();
    for other in message.keys_of_former_clusters() {
        if other != key && !renamed.contains(&other) {
            renamed.push(other);
        }
    }
    let former = message.former_object_key();
    let former = former.filter(|former| former != key && !renamed.contains(former));
    (former, renamed)
}

fn alert(message: &Message<'_>, object: ObjectState) -> Value {
    let build = |text: &str, fields: &Fields| alert_of(message, object, text, fields);
    fit_json(LONGEST_BODY, message.text(), message.metadata, build)
}

fn alert_of(message: &Message<'_>, object: ObjectState, text: &str, fields: &Fields) -> Value {
    let event = message.event;
    let mut metadata = fields.clone();
    let own = [
        ("severity", &event.severity),
        ("reason", &event.reason),
        ("reportingController", &event.reporting_controller),
    ];
    metadata
        .extend(present(own).map(|(key, value)| (key.to_owned(), cut_chars(value, LONGEST_TITLE))));
    let standard_title = || format!("{}: {}", message.object_heading(), event.reason);
    let mut alert = json!({
        "title": message.title_or(standard_title),
        "status": if object == ObjectState::Failure { "firing" } else { "resolved" },
        "deduplication_key": message.object_key(),
        "description": text,
        "metadata": metadata,
    });
    // There is one field for a link, which is meant for the source of the alert.
    if let Some(link) = message.links().last() {
        alert["source_url"] = link.url.as_str().into();
    }
    TYPE.size_limits.applied_to(alert)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample};
    use futures::FutureExt;

    fn provider() -> ResolvedProvider {
        sample::provider("incident.io", |provider| {
            provider.address = "https://api.incident.io/v2/alert_events/http/01A".into();
            provider.secret = sample::secret(&[("token", "inc")]);
        })
    }

    fn desired(sample: &Sample) -> Option<DesiredState> {
        match build(&provider(), Http::dry_run()).unwrap() {
            Notifier::State(notifier) => {
                let message = sample.message();
                let desired = notifier.desire(&message).now_or_never();
                desired.expect("it waits for nothing").unwrap()
            }
            Notifier::Message(_) => None,
        }
    }

    #[tokio::test]
    async fn an_error_fires() {
        let mut event = Sample::error();
        event.metadata.insert("severity".into(), "mine".into());
        let request = sample::request(&TYPE, &provider(), &event).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://api.incident.io/v2/alert_events/http/01A
        authorization: Bearer inc (secret)
        content-type: application/json

        {
          "title": "kustomization/webapp.apps: HealthCheckFailed",
          "status": "firing",
          "deduplication_key": "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f",
          "description": "Health check failed after 30s\nDeployment/web: not ready",
          "metadata": {
            "cluster": "prod-1",
            "reason": "HealthCheckFailed",
            "reportingController": "kustomize-controller",
            "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
            "severity": "error",
            "summary": "Production is affected"
          }
        }
        "#);
    }

    #[tokio::test]
    async fn any_other_event_resolves() {
        let request = sample::request(&TYPE, &provider(), &Sample::info()).await;
        assert_eq!(sample::body(&request)["status"], "resolved");
    }

    #[test]
    fn firing_and_resolved_are_states_of_one_key() {
        let (error, info) = (
            desired(&Sample::error()).unwrap(),
            desired(&Sample::info()).unwrap(),
        );
        assert_eq!(error.key, info.key);
        assert_ne!(error.state, info.state);
    }

    #[test]
    fn the_same_failure_at_another_time_is_another_state() {
        let mut later = Sample::error();
        later.event.timestamp.as_mut().unwrap().seconds += 600;
        assert_ne!(
            desired(&Sample::error()).unwrap().state,
            desired(&later).unwrap().state
        );
    }

    #[test]
    fn progress_is_ignored() {
        let mut event = Sample::info();
        event.event.reason = "Progressing".into();
        assert_eq!(desired(&event), None);
    }

    /// A success of an object without a uid, in a cluster that had many names.
    fn renamed() -> Sample {
        let mut event = Sample::info();
        event.event.involved_object.as_mut().unwrap().uid.clear();
        event.event.cluster = "prod".into();
        let names = (0..14).map(|number| format!("old-{number}"));
        event.former_clusters = names.chain(["prod".into(), "old-0".into()]).collect();
        event
    }

    async fn sent(state: &DesiredState) -> Vec<Value> {
        let http = Http::dry_run();
        let Notifier::State(notifier) = build(&provider(), http.clone()).unwrap() else {
            panic!("it keeps states");
        };
        notifier.write(state, None).await.unwrap();
        http.recorded().iter().map(sample::body).collect()
    }

    #[tokio::test]
    async fn former_keys_are_resolved_and_a_state_has_one_alert_however_many_there_are() {
        let event = renamed().with_message("m".repeat(100_000));
        let desired = desired(&event).unwrap();
        assert!(desired.state.len() < 110_000, "{}", desired.state.len());
        let sent = sent(&desired).await;
        let keys: Vec<_> = sent.iter().map(|it| &it["deduplication_key"]).collect();
        let mut expected = vec!["Kustomization/apps/webapp".to_owned()];
        let old = (0..14).map(|number| format!("old-{number}/Kustomization/apps/webapp"));
        expected.extend(old);
        expected.push("prod/Kustomization/apps/webapp".to_owned());
        assert_eq!(keys, expected.iter().collect::<Vec<_>>());
        assert!(sent.iter().all(|alert| alert["status"] == "resolved"));
    }

    #[test]
    fn a_state_without_former_keys_has_no_field_for_them() {
        for event in [Sample::info(), Sample::error()] {
            let state = desired(&event).unwrap();
            let state: Value = state.decode().unwrap();
            let fields: Vec<_> = state.as_object().unwrap().keys().collect();
            assert_eq!(fields, ["at", "body"]);
        }
    }

    #[tokio::test]
    async fn a_record_of_an_earlier_version_resolves_its_alerts() {
        let alert = |key: &str| json!({"deduplication_key": key, "status": "resolved"});
        let stored = json!({
            "at": "2026-01-02T03:04:05Z",
            "former": alert("former"), "renamed": [alert("old")], "body": alert("now"),
        });
        let sent = sent(&DesiredState::new("key".into(), &stored)).await;
        assert_eq!(sent, [alert("former"), alert("old"), alert("now")]);
    }

    #[test]
    fn without_a_token_the_provider_is_invalid() {
        let provider = sample::provider("incident.io", |_| {});
        assert!(sample::build_error(&TYPE, &provider).contains("token"));
    }
}
