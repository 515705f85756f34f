//! `pagerduty`: a failure triggers an incident for its object, and a success resolves it. Other
//! events send nothing.
//!
//! Contract: PagerDuty's "Events API v2", Send an Alert Event (summary at most 1,024 characters)
//! and Send a Change Event. Only scheme and host of the address are used. The routing key is in the
//! Secret, or it is the channel, as in Flux. Severity info sends a change event after the resolve,
//! unless the resolve fails.
//!
//! Only the newest state of an object counts, so that a retried trigger never outlives its resolve.
//! The change event of a superseded state is not sent. A retry after a lost response does no harm:
//! PagerDuty deduplicates alerts by their key, and at worst shows one change event twice.
//!
//! 400 is an invalid event, and 429 and 5xx are retried: the shared table covers all of them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_core::model::id::digest;
use tidings_core::model::object_state::{self, ObjectState, ReasonStates};
use tidings_rules::{Family, ResolvedProvider, SecretValue};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use crate::http::address::{at_path, http_url};
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Link;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, SizeUnit, rate,
};
use crate::notifier::contract::need::Demand::{Either, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit_body::{Fields, fit_json};
use crate::text::{cut_chars, words};

const MOST_OF_A_SUMMARY: usize = 1_024;
/// In bytes: 512 KB.
const LONGEST_BODY: usize = 512_000;
/// What the routing key may add to a body, in bytes. It has 32 characters.
const LONGEST_KEY: usize = 1_000;
const ALERT_PATH: &str = "/v2/enqueue";
const CHANGE_PATH: &str = "/v2/change/enqueue";

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "pagerduty",
    family: Family::Incident,
    summary: "PagerDuty, an incident for each failing object",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://events.pagerduty.com, or that of the EU",
            "https://events.pagerduty.com",
        ),
        Need::key(
            "routingKey",
            Either,
            "the routing key; takes precedence over channel",
            "your-routing-key",
        ),
        Need::field(
            "channel",
            Either,
            "the routing key, where anyone can read it",
            "",
        ),
    ],
    cut_at: "512 KB, summary 1,024",
    sent_twice: "one incident; a change event may show twice",
    build,
    channel_key: "routingKey",
    confirmation: Confirmation::JsonOrOk(&[("status", Is::Text("success"))]),
    // The limit of an integration key.
    rate_limits: RateLimits {
        scope: LimitScope::Provider,
        rates: &[rate(120, 60)],
        source: "https://community.pagerduty.com/forum/t/monitoring-api-rate-limiting/3318",
    },
    mentions: Mentions::none("the service's escalation policy decides who is notified"),
    size_limits: SizeLimits {
        source: "https://developer.pagerduty.com/docs/events-api-v2-overview#size-limits",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[
            SizeLimit::characters("/payload/summary", MOST_OF_A_SUMMARY),
            SizeLimit::characters("/payload/source", 1_024),
            SizeLimit::id("/payload/component", 1_024),
            SizeLimit::id("/payload/group", 1_024),
            SizeLimit::id("/dedup_key", 255),
        ],
    },
    ..ProviderType::DEFAULT
};

struct PagerDuty {
    http: Http,
    url: Url,
    reason_states: ReasonStates,
}

/// One request of a state, without the routing key. A state is a list of requests, sent in order.
#[derive(Serialize, Deserialize)]
struct Step {
    path: String,
    body: Value,
    /// Whether only the first resolve of an object has this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_for_former_key: bool,
}

/// The handle of an object whose former key is resolved.
const FORMER_KEY_RESOLVED: &str = "former key resolved";

/// The body of a request.
#[derive(Serialize)]
struct Post<'a> {
    routing_key: &'a str,
    #[serde(flatten)]
    body: &'a Value,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::State(Box::new(PagerDuty {
        http,
        url,
        reason_states: provider.reason_states.clone(),
    })))
}

#[async_trait]
impl KeepState for PagerDuty {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let state = object_state::with(message.event, &self.reason_states);
        if state.opposite().is_none() {
            return Ok(None);
        }
        let (host, object) = (
            self.url.host_str().unwrap_or_default(),
            message.object_key(),
        );
        let key = format!("pagerduty {host} {} {object}", digest(&[message.channel]));
        let desired = DesiredState::new(key, &steps(message, state));
        Ok(Some(desired.with_secret(message.channel)))
    }

    async fn read(&self, _desired: &DesiredState) -> Result<RemoteState, Failure> {
        Ok(RemoteState::Unknown)
    }

    async fn write(&self, desired: &DesiredState, handle: Option<&str>) -> Result<Sent, Failure> {
        let steps: Vec<Step> = desired.decode()?;
        let secret = desired.secret.as_ref().and_then(SecretValue::text);
        let routing_key = secret.unwrap_or_default();
        let (mut status, mut handle) = (None, handle.map(str::to_owned));
        for step in steps {
            let Step { path, mut body, .. } = step;
            if step.is_for_former_key && handle.is_some() {
                continue;
            }
            // Records of former versions have the key.
            if let Some(fields) = body.as_object_mut() {
                fields.remove("routing_key");
            }
            let post = Post {
                routing_key,
                body: &body,
            };
            let request = Request::post_json(at_path(&self.url, &path), &post);
            let request = request.holding(routing_key);
            status = Some(classify(&self.http.send(request).await?)?);
            if step.is_for_former_key {
                handle = Some(FORMER_KEY_RESOLVED.to_owned());
            }
        }
        Ok(Sent::Accepted { status, handle })
    }
}

/// The requests for an event. Triggers and change events hold the event's time, so that each of
/// them is another state.
fn steps(message: &Message<'_>, state: ObjectState) -> Vec<Step> {
    let dedup_key = message.object_key();
    let fitted = |event: Value| {
        fit_json(
            LONGEST_BODY - LONGEST_KEY,
            message.text(),
            message.metadata,
            |text, fields| {
                let mut body = event.clone();
                body["payload"] = payload(message, state, text, fields);
                TYPE.size_limits.applied_to(with_links(body, message))
            },
        )
    };
    if state == ObjectState::Failure {
        let trigger = json!({
            "event_action": "trigger", "dedup_key": dedup_key,
        });
        return vec![Step {
            path: ALERT_PATH.into(),
            body: fitted(trigger),
            is_for_former_key: false,
        }];
    }
    // An incident that a release without clusters in keys has opened is resolved, too. So is one
    // under a former name of the cluster, each time, because a retry may still open one there.
    let former = message.former_object_key().map(|key| (key, true));
    let renamed = message.keys_of_former_clusters().into_iter();
    let keys = former.into_iter().chain(renamed.map(|key| (key, false)));
    let keys = keys.chain([(dedup_key, false)]);
    let mut steps: Vec<Step> = keys
        .map(|(key, is_for_former_key)| Step {
            path: ALERT_PATH.into(),
            body: json!({ "event_action": "resolve", "dedup_key": key }),
            is_for_former_key,
        })
        .collect();
    if message.event.severity == "info" {
        steps.push(Step {
            path: CHANGE_PATH.into(),
            body: fitted(json!({})),
            is_for_former_key: false,
        });
    }
    steps
}

fn payload(message: &Message<'_>, state: ObjectState, text: &str, fields: &Fields) -> Value {
    let mut payload = json!({
        "summary": summary(message),
        "source": format!("Flux {}", message.event.reporting_controller).trim_end(),
        "timestamp": message.rfc3339(),
        "custom_details": { "message": text, "metadata": fields },
    });
    if state == ObjectState::Failure {
        payload["severity"] = "error".into();
        payload["component"] = message.object.name.as_str().into();
        payload["group"] = message.object.kind.as_str().into();
    }
    payload
}

fn with_links(mut body: Value, message: &Message<'_>) -> Value {
    if !message.links().is_empty() {
        let link = |link: &Link| json!({ "href": link.url, "text": link.label });
        body["links"] = message.links().iter().map(link).collect();
    }
    body
}

fn summary(message: &Message<'_>) -> String {
    let object = message.object;
    let name = format!("{}/{}", object.kind, object.name).to_lowercase();
    let standard_title = || format!("{}: {name}", words(&message.event.reason));
    cut_chars(&message.title_or(standard_title), MOST_OF_A_SUMMARY)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tidings_core::Reason;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::notifier::sample::{self, Sample};

    fn provider() -> ResolvedProvider {
        sample::provider("pagerduty", |provider| {
            provider.address = "https://events.eu.pagerduty.com/v2/enqueue?x=1".into()
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
    async fn an_error_triggers() {
        let request = sample::request(&TYPE, &provider(), &Sample::error()).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://events.eu.pagerduty.com/v2/enqueue
        content-type: application/json

        {
          "routing_key": "general",
          "event_action": "trigger",
          "dedup_key": "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f",
          "payload": {
            "summary": "health check failed: kustomization/webapp",
            "source": "Flux kustomize-controller",
            "timestamp": "2026-03-14T09:26:53Z",
            "custom_details": {
              "message": "Health check failed after 30s\nDeployment/web: not ready",
              "metadata": {
                "cluster": "prod-1",
                "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
                "summary": "Production is affected"
              }
            },
            "severity": "error",
            "component": "webapp",
            "group": "Kustomization"
          }
        }
        "#);
    }

    #[tokio::test]
    async fn success_resolves_and_then_sends_a_change_event() {
        let requests = sample::requests(&TYPE, &provider(), &Sample::info()).await;
        let shown: Vec<String> = requests.iter().map(sample::shown).collect();
        insta::assert_snapshot!(shown.join("\n\n"), @r#"
        POST https://events.eu.pagerduty.com/v2/enqueue
        content-type: application/json

        {
          "routing_key": "general",
          "event_action": "resolve",
          "dedup_key": "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f"
        }

        POST https://events.eu.pagerduty.com/v2/change/enqueue
        content-type: application/json

        {
          "routing_key": "general",
          "payload": {
            "summary": "reconciliation succeeded: kustomization/webapp",
            "source": "Flux kustomize-controller",
            "timestamp": "2026-03-14T09:26:53Z",
            "custom_details": {
              "message": "Reconciliation finished in 1.35s",
              "metadata": {
                "cluster": "prod-1",
                "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
                "summary": "Production is affected"
              }
            }
          }
        }
        "#);
    }

    #[tokio::test]
    async fn a_record_of_a_former_version_is_written_with_the_current_key() {
        let steps = json!([{"path": ALERT_PATH, "body": {"routing_key": "old", "dedup_key": "d"}}]);
        let desired = DesiredState::new("key".into(), &steps).with_secret("new");
        let http = Http::dry_run();
        let Notifier::State(notifier) = build(&provider(), http.clone()).unwrap() else {
            unreachable!("pagerduty keeps states")
        };
        notifier.write(&desired, None).await.unwrap();
        let expected = json!({"routing_key": "new", "dedup_key": "d"});
        assert_eq!(sample::body(&http.recorded()[0]), expected);
    }

    #[tokio::test]
    async fn a_success_resolves_the_incidents_of_former_names_of_the_cluster() {
        let mut event = Sample::info();
        event.event.severity = "trace".into();
        event.event.cluster = "prod-1".into();
        event.former_clusters = vec!["old".into()];
        let keys = async |event: &Sample| -> Vec<String> {
            let requests = sample::requests(&TYPE, &provider(), event).await;
            let keys = requests
                .iter()
                .map(|it| sample::body(it)["dedup_key"].clone());
            keys.map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            keys(&event).await.len(),
            1,
            "a uid is the same under each name"
        );
        event.event.involved_object.as_mut().unwrap().uid.clear();
        let path = "Kustomization/apps/webapp";
        let expected = [
            path.to_owned(),
            format!("old/{path}"),
            format!("prod-1/{path}"),
        ];
        assert_eq!(keys(&event).await, expected);
    }

    #[tokio::test]
    async fn other_severities_only_resolve_and_progress_is_ignored() {
        let mut event = Sample::info();
        event.event.severity = "trace".into();
        assert_eq!(sample::requests(&TYPE, &provider(), &event).await.len(), 1);
        event.event.reason = "Progressing".into();
        assert_eq!(desired(&event), None);
    }

    /// A service that answers one request after the other with these statuses. Returns the paths
    /// of the requests.
    async fn answering(statuses: Vec<u16>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut paths = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                while !request.ends_with('}') {
                    let mut chunk = [0; 4096];
                    let size = stream.read(&mut chunk).await.unwrap();
                    request.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
                }
                paths.push(request.split(' ').nth(1).unwrap().to_owned());
                let response = format!(
                    "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                stream.write_all(response.as_bytes()).await.unwrap();
            }
            paths
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_change_event_follows_only_an_accepted_resolve() {
        for (statuses, paths, expected) in [
            (vec![202, 202], vec![ALERT_PATH, CHANGE_PATH], None),
            (vec![400], vec![ALERT_PATH], Some((Reason::Rejected, false))),
            (
                vec![202, 429],
                vec![ALERT_PATH, CHANGE_PATH],
                Some((Reason::RateLimited, true)),
            ),
        ] {
            let (address, service) = answering(statuses).await;
            let provider = sample::provider("pagerduty", |provider| provider.address = address);
            let http = Http::new(&provider, &sample::http_clients()).unwrap();
            // The service of this test answers with the status alone.
            let http = http.confirmed_by(Confirmation::Status);
            let Notifier::State(notifier) = build(&provider, http).unwrap() else {
                unreachable!("pagerduty keeps states")
            };
            let desired = notifier
                .desire(&Sample::info().message())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                sample::meaning(notifier.write(&desired, None).await),
                expected
            );
            assert_eq!(service.await.unwrap(), paths);
        }
    }

    #[tokio::test]
    async fn a_long_summary_is_cut() {
        let mut event = Sample::error();
        event.event.reason = "x".repeat(2_000);
        let body = sample::body(&sample::request(&TYPE, &provider(), &event).await);
        assert_eq!(
            body["payload"]["summary"].as_str().unwrap().chars().count(),
            1_024
        );
    }

    #[test]
    fn trigger_and_resolve_of_an_object_are_states_of_one_key() {
        let (error, info) = (
            desired(&Sample::error()).unwrap(),
            desired(&Sample::info()).unwrap(),
        );
        assert_eq!(error.key, info.key);
        assert_ne!(error.state, info.state);
        for desired in [error, info] {
            let stored = format!(
                "{} {}",
                desired.key,
                String::from_utf8_lossy(&desired.state)
            );
            assert!(
                !stored.contains("general"),
                "the routing key is in the record"
            );
        }
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
    fn an_object_without_uid_has_its_own_key() {
        let mut event = Sample::info();
        event.event.involved_object.as_mut().unwrap().uid.clear();
        assert!(
            desired(&event)
                .unwrap()
                .key
                .ends_with(" Kustomization/apps/webapp")
        );
    }
}
