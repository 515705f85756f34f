//! `sentry`: an error becomes an event, any other event a transaction with one span.
//!
//! Contract: Sentry's developer documentation, "Envelopes", "Event Payloads", "Transaction
//! Payloads" and "Rate Limiting". The address is the DSN. Its key is public, and part of the
//! envelope as in SDKs. The secret part of old DSNs is in the header only. Ids derive from the
//! delivery, so that Sentry drops duplicates.
//!
//! 429 is a rate limit. As documented, the wait is that of `X-Sentry-Rate-Limits` for this kind of
//! item, else `Retry-After`, else a minute.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::HeaderName;
use serde_json::{Map, Value, json};
use tidings_core::Failure;
use tidings_core::model::id::digest;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::{classify, retry_after};
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit_body::{Fields, fit_json};
use crate::text::cut_id;

const AUTH: HeaderName = HeaderName::from_static("x-sentry-auth");
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// In bytes, before compression: 1 MB.
const LONGEST_ITEM: usize = 1_000_000;
/// The longest name or value of a tag, in characters. Sentry drops longer ones.
const LONGEST_TAG: usize = 200;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "sentry",
    family: Family::Message,
    summary: "Sentry, errors as events and the rest as transactions",
    needs: &[
        Need::key(
            "address",
            Required,
            "the DSN",
            "https://public-key@o1.ingest.sentry.io/1",
        ),
        Need::field("channel", Optional, "the environment", "production"),
    ],
    cut_at: "1 MB, tag 200",
    sent_twice: "dropped by Sentry",
    build,
    confirmation: Confirmation::JsonOrOk(&[("id", Is::Present)]),
    mentions: Mentions::none("the project's alert rules decide who is notified"),
    size_limits: SizeLimits {
        source: "https://docs.sentry.io/concepts/data-management/size-limits",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_ITEM),
        parts: &[
            SizeLimit::id("/transaction", 200),
            SizeLimit::characters("/environment", 64),
            SizeLimit::characters("/server_name", 200),
            SizeLimit::characters("/tags/*", LONGEST_TAG),
            SizeLimit::characters("/spans/0/tags/*", LONGEST_TAG),
        ],
    },
    ..ProviderType::DEFAULT
};

struct Sentry {
    http: Http,
    /// The URL for envelopes.
    url: Url,
    /// The DSN without its secret part.
    dsn: Url,
    auth: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let mut dsn = http_url(provider)?;
    let (prefix, project) = dsn.path().rsplit_once('/').unwrap_or_default();
    if project.is_empty() {
        return Err(Invalid::from(
            "the address is not a DSN: the project's id is missing; write it as https://KEY@HOST/PROJECT",
        ));
    }
    if dsn.username().is_empty() {
        return Err(Invalid::from(
            "the address is not a DSN: the public key is missing; write it as https://KEY@HOST/PROJECT",
        ));
    }
    let path = format!("{prefix}/api/{project}/envelope/");
    let client = concat!("tidings/", env!("CARGO_PKG_VERSION"));
    let mut auth = format!(
        "Sentry sentry_version=7, sentry_client={client}, sentry_key={}",
        dsn.username()
    );
    if let Some(secret) = dsn.password() {
        auth.push_str(&format!(", sentry_secret={secret}"));
    }
    // A URL from http_url has a host, so user and password can be set.
    let _ = dsn.set_password(None);
    dsn.set_query(None);
    let mut url = dsn.clone();
    let _ = url.set_username("");
    url.set_path(&path);
    Ok(Notifier::Message(Box::new(Sentry {
        http,
        url,
        dsn,
        auth,
    })))
}

#[async_trait]
impl SendMessage for Sentry {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let body = envelope(message, &self.dsn, Timestamp::now());
        let request = Request::new(Method::POST, self.url.clone())
            .body("application/x-sentry-envelope", body)
            .secret_header(AUTH, &self.auth);
        check(&self.http.send(request).await?, item_type(message)).map(Sent::accepted)
    }
}

fn item_type(message: &Message<'_>) -> &'static str {
    if message.is_error() {
        "event"
    } else {
        "transaction"
    }
}

/// Three lines of JSON: the envelope's header, the item's header, the item.
fn envelope(message: &Message<'_>, dsn: &Url, now: Timestamp) -> Vec<u8> {
    let event_id = digest(&["sentry event", message.delivery_id]);
    let build = if message.is_error() {
        event
    } else {
        transaction
    };
    let text = message.titled_text();
    let item = fit_json(LONGEST_ITEM, &text, message.metadata, |text, fields| {
        let item = build(message, &event_id, text, fields);
        TYPE.size_limits.applied_to(item)
    });
    let item = item.to_string();
    let header = json!({ "event_id": event_id, "sent_at": now.to_string(), "dsn": dsn.as_str() });
    let item_header = json!({ "type": item_type(message), "length": item.len() });
    format!("{header}\n{item_header}\n{item}\n").into_bytes()
}

fn event(message: &Message<'_>, event_id: &str, text: &str, fields: &Fields) -> Value {
    let mut item = common(message, event_id, text);
    item["level"] = "error".into();
    let controller = message.event.reporting_controller.as_str();
    if !controller.is_empty() {
        item["server_name"] = controller.into();
    }
    if let Some((key, cluster)) = message.cluster_field() {
        item["tags"] = json!({ key: cluster });
    }
    item["contexts"] = json!({ "metadata": fields });
    if !message.links().is_empty() {
        item["contexts"]["links"] = links(message);
    }
    item
}

fn transaction(message: &Message<'_>, event_id: &str, text: &str, fields: &Fields) -> Value {
    let trace_id = digest(&["sentry trace", message.delivery_id]);
    let span_id = &digest(&["sentry span", message.delivery_id])[..16];
    let (time, tags) = (message.rfc3339(), tags(message, fields));
    let mut item = common(message, event_id, text);
    item["type"] = "transaction".into();
    item["level"] = "info".into();
    item["start_timestamp"] = time.as_str().into();
    item["contexts"] =
        json!({ "trace": { "op": "event", "span_id": span_id, "trace_id": trace_id } });
    if !message.links().is_empty() {
        item["contexts"]["links"] = links(message);
    }
    item["spans"] = json!([{
        "op": "event", "origin": "manual", "span_id": span_id, "trace_id": trace_id,
        "start_timestamp": time, "timestamp": time, "tags": tags,
    }]);
    item["tags"] = json!(tags);
    item
}

fn links(message: &Message<'_>) -> Value {
    message
        .links()
        .iter()
        .map(|link| (link.key.to_owned(), Value::from(link.url.as_str())))
        .collect::<Map<_, _>>()
        .into()
}

/// The fields of both kinds of items.
fn common(message: &Message<'_>, event_id: &str, text: &str) -> Value {
    let object = message.object;
    let mut item = json!({
        "event_id": event_id,
        "timestamp": message.rfc3339(),
        "platform": "other",
        "message": text,
        "transaction": format!("{}: {}/{}", object.kind, object.namespace, object.name),
    });
    if !message.channel.is_empty() {
        item["environment"] = message.channel.into();
    }
    item
}

fn tags(message: &Message<'_>, fields: &Fields) -> Fields {
    let (event, object) = (message.event, message.object);
    let own = [
        ("flux_involved_object_kind", object.kind.as_str()),
        ("flux_involved_object_name", &object.name),
        ("flux_involved_object_namespace", &object.namespace),
        ("flux_reason", &event.reason),
        ("flux_reporting_controller", &event.reporting_controller),
        ("flux_reporting_instance", &event.reporting_instance),
    ];
    let own = present(own).map(|(key, value)| (key.to_owned(), cut_id(value, LONGEST_TAG)));
    let fields = fields
        .iter()
        .map(|(key, value)| (cut_id(key, LONGEST_TAG), value.clone()));
    let cluster = message.cluster_field();
    let cluster = cluster.map(|(key, value)| (key.to_owned(), value));
    own.chain(fields).chain(cluster).collect()
}

fn check(response: &Response, item_type: &str) -> Result<u16, Failure> {
    classify(response).map_err(|failure| match response.status {
        429 => {
            let wait =
                rate_limit(response, item_type).or_else(|| retry_after(response, Timestamp::now()));
            failure.after(Some(wait.unwrap_or(DEFAULT_WAIT)))
        }
        _ => failure,
    })
}

/// The longest limit in `X-Sentry-Rate-Limits` (`SECONDS:CATEGORY;CATEGORY:SCOPE, …`) for this kind
/// of item. A limit without categories applies to all. Events have the category `error`.
fn rate_limit(response: &Response, item_type: &str) -> Option<Duration> {
    let category = if item_type == "event" {
        "error"
    } else {
        item_type
    };
    let limit = |text: &str| {
        let mut parts = text.trim().split(':');
        let seconds: u64 = parts.next()?.trim().parse().ok()?;
        let categories = parts.next().unwrap_or_default();
        (categories.is_empty() || categories.split(';').any(|name| name == category))
            .then(|| Duration::from_secs(seconds))
    };
    response
        .header("x-sentry-rate-limits")?
        .split(',')
        .filter_map(limit)
        .max()
}

#[cfg(test)]
mod tests {
    use tidings_core::Reason;

    use super::*;
    use crate::notifier::sample::{self, Sample};

    fn provider(address: &str) -> ResolvedProvider {
        sample::provider("sentry", |provider| provider.address = address.into())
    }

    #[tokio::test]
    async fn the_secret_part_of_a_dsn_is_only_in_the_header() {
        let request = sample::request(
            &TYPE,
            &provider("https://pub:old@sentry.example.com/base/42"),
            &Sample::info(),
        )
        .await;
        assert_eq!(
            request.url.as_str(),
            "https://sentry.example.com/base/api/42/envelope/"
        );
        let auth = &request.headers["x-sentry-auth"];
        assert!(auth.is_sensitive());
        assert!(
            auth.to_str()
                .unwrap()
                .ends_with(", sentry_key=pub, sentry_secret=old")
        );
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        assert!(
            body.contains(r#""dsn":"https://pub@sentry.example.com/base/42""#)
                && !body.contains("old"),
            "{body}"
        );
    }

    fn shown(sample: &Sample) -> String {
        let dsn = "https://pub@sentry.example.com/42".parse().unwrap();
        let envelope = envelope(&sample.message(), &dsn, Timestamp::UNIX_EPOCH);
        let lines = String::from_utf8(envelope).unwrap();
        let pretty = |line: &str| format!("{:#}", serde_json::from_str::<Value>(line).unwrap());
        lines.lines().map(pretty).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_error_becomes_an_event() {
        insta::assert_snapshot!(shown(&Sample::error()), @r#"
        {
          "event_id": "2b3389556c322192d16a1ed1c4d7eea0",
          "sent_at": "1970-01-01T00:00:00Z",
          "dsn": "https://pub@sentry.example.com/42"
        }
        {
          "type": "event",
          "length": 434
        }
        {
          "event_id": "2b3389556c322192d16a1ed1c4d7eea0",
          "timestamp": "2026-03-14T09:26:53Z",
          "platform": "other",
          "message": "Health check failed after 30s\nDeployment/web: not ready",
          "transaction": "Kustomization: apps/webapp",
          "environment": "general",
          "level": "error",
          "server_name": "kustomize-controller",
          "contexts": {
            "metadata": {
              "cluster": "prod-1",
              "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
              "summary": "Production is affected"
            }
          }
        }
        "#);
    }

    #[test]
    fn any_other_event_becomes_a_transaction() {
        insta::assert_snapshot!(shown(&Sample::info()), @r#"
        {
          "event_id": "2b3389556c322192d16a1ed1c4d7eea0",
          "sent_at": "1970-01-01T00:00:00Z",
          "dsn": "https://pub@sentry.example.com/42"
        }
        {
          "type": "transaction",
          "length": 1403
        }
        {
          "event_id": "2b3389556c322192d16a1ed1c4d7eea0",
          "timestamp": "2026-03-14T09:26:53Z",
          "platform": "other",
          "message": "Reconciliation finished in 1.35s",
          "transaction": "Kustomization: apps/webapp",
          "environment": "general",
          "type": "transaction",
          "level": "info",
          "start_timestamp": "2026-03-14T09:26:53Z",
          "contexts": {
            "trace": {
              "op": "event",
              "span_id": "348b223d474b7a62",
              "trace_id": "8e7a792895fdd76762b94741af016581"
            }
          },
          "spans": [
            {
              "op": "event",
              "origin": "manual",
              "span_id": "348b223d474b7a62",
              "trace_id": "8e7a792895fdd76762b94741af016581",
              "start_timestamp": "2026-03-14T09:26:53Z",
              "timestamp": "2026-03-14T09:26:53Z",
              "tags": {
                "cluster": "prod-1",
                "flux_involved_object_kind": "Kustomization",
                "flux_involved_object_name": "webapp",
                "flux_involved_object_namespace": "apps",
                "flux_reason": "ReconciliationSucceeded",
                "flux_reporting_controller": "kustomize-controller",
                "flux_reporting_instance": "kustomize-controller-6f7c9d8b5-x2k4q",
                "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
                "summary": "Production is affected"
              }
            }
          ],
          "tags": {
            "cluster": "prod-1",
            "flux_involved_object_kind": "Kustomization",
            "flux_involved_object_name": "webapp",
            "flux_involved_object_namespace": "apps",
            "flux_reason": "ReconciliationSucceeded",
            "flux_reporting_controller": "kustomize-controller",
            "flux_reporting_instance": "kustomize-controller-6f7c9d8b5-x2k4q",
            "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
            "summary": "Production is affected"
          }
        }
        "#);
    }

    #[test]
    fn an_invalid_dsn_is_rejected() {
        for (address, word) in [
            ("", "address"),
            ("https://sentry.example.com/42", "public key"),
            ("https://pub@sentry.example.com", "project"),
            ("https://pub@sentry.example.com/", "project"),
        ] {
            assert!(
                sample::build_error(&TYPE, &provider(address)).contains(word),
                "{address}"
            );
        }
    }

    #[test]
    fn a_rate_limit_gives_the_wait() {
        let limited =
            |limits| sample::with_header(sample::response(429, ""), "x-sentry-rate-limits", limits);
        for (response, item_type, seconds) in [
            (
                limited("30:error;default:project, 2700::organization"),
                "event",
                2700.0,
            ),
            (
                limited("30:error;default:project, 20:transaction:project"),
                "event",
                30.0,
            ),
            (
                limited("30:error:project,20:transaction:project"),
                "transaction",
                20.0,
            ),
            (
                sample::with_header(limited("9:attachment:project"), "retry-after", "7"),
                "event",
                7.0,
            ),
            (sample::response(429, ""), "event", 60.0),
        ] {
            assert_eq!(
                sample::wait(check(&response, item_type)),
                Some(seconds),
                "{response:?}"
            );
        }
        assert_eq!(
            sample::meaning(check(&sample::response(413, ""), "event")),
            Some((Reason::Rejected, false))
        );
        assert_eq!(
            sample::meaning(check(&sample::response(200, ""), "event")),
            None
        );
    }
}
