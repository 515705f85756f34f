//! `otel`: one span for each event, as OTLP over HTTP.
//!
//! Contract: the OpenTelemetry Protocol specification 1.x, "OTLP/HTTP", with the messages of
//! `opentelemetry/proto/trace/v1` in protobuf. Events of one revision under one alert share
//! a trace. The span's id follows from the delivery, and it ends when the event was received, so
//! that a retry after a lost response is the same span.
//!
//! The specification allows a retry after 429, 502, 503 and 504 only. 401 and 403 are retried as
//! for all types, since a token may be in rotation. An accepted export can reject spans
//! (`partial_success`), which is permanent.

use async_trait::async_trait;
use prost::Message as _;
use reqwest::Method;
use sha2::{Digest, Sha256};
use tidings_core::model::origin;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use self::otlp::{
    AnyValue, ExportRequest, ExportResponse, InstrumentationScope, KeyValue, Resource,
    ResourceSpans, ScopeSpans, Span, SpanKind, Status, StatusCode, Value,
};
use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::{StatusRule, classify_with};
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;

mod otlp;

const PROTOBUF: &str = "application/x-protobuf";
/// The semantic conventions that define the resource's attributes.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.34.0";

/// W3C trace flags: sampled (1), and that the parent is known to be remote (0x100, 0x200).
const FLAGS: u32 = 0x301;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "otel",
    family: Family::Message,
    summary: "OpenTelemetry, a span for each event over OTLP/HTTP",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://HOST:4318; default path: /v1/traces",
            "https://otel.example.com:4318",
        ),
        Need::key("headers", Optional, "more headers, as a YAML map", ""),
        Need::key("token", Optional, "a bearer token", "your-token"),
        Need::key("username", Optional, "in place of token, with password", ""),
        Need::key("password", Optional, "with username", ""),
    ],
    cut_at: "20 MiB",
    sent_twice: "one span",
    build,
    confirmation: Confirmation::Parsed,
    status_rules: &[
        StatusRule::permanent(408..=408, Reason::Timeout),
        StatusRule::permanent(425..=425, Reason::ServerError),
        StatusRule::permanent(500..=500, Reason::ServerError),
        StatusRule::permanent(506..=599, Reason::ServerError),
    ],
    mentions: Mentions::none("spans notify nobody"),
    size_limits: SizeLimits {
        source: "https://github.com/open-telemetry/opentelemetry-collector/blob/main/config/confighttp/README.md",
        body: BodyLimit::AtMost(SizeUnit::Bytes, 20 << 20),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

struct Otel {
    http: Http,
    url: Url,
    provider: ResolvedProvider,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let mut url = http_url(provider)?;
    let path = match url.path().trim_end_matches('/') {
        "" => "/v1/traces".to_owned(),
        path => path.to_owned(),
    };
    url.set_path(&path);
    Ok(Notifier::Message(Box::new(Otel {
        http,
        url,
        provider: provider.clone(),
    })))
}

#[async_trait]
impl SendMessage for Otel {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        if message.object.kind == "HelmRepository" {
            return Ok(Sent::Skipped(
                "an event of a HelmRepository belongs to no release".into(),
            ));
        }
        let request = Request::new(Method::POST, self.url.clone())
            .body(PROTOBUF, export(message).encode_to_vec());
        check(&self.http.send(self.authorized(request)).await?).map(Sent::accepted)
    }
}

impl Otel {
    fn authorized(&self, request: Request) -> Request {
        let secret = &self.provider.secret;
        let key = secret
            .token()
            .or(secret.basic().map(|(_, password)| password));
        match (self.provider.username.as_str(), key) {
            (_, None) => request,
            ("", Some(token)) => request.bearer(token),
            (username, Some(password)) => request.basic(username, password),
        }
    }
}

fn check(response: &Response) -> Result<u16, Failure> {
    let status = classify_with(response, TYPE.status_rules)?;
    if response
        .header("content-type")
        .is_some_and(|kind| kind.starts_with(PROTOBUF))
        && let Ok(ExportResponse {
            partial_success: Some(partial),
        }) = ExportResponse::decode(response.body.as_slice())
        && partial.rejected_spans > 0
    {
        let detail = format!(
            "{} rejected the span: {}",
            response.host, partial.error_message
        );
        return Err(Failure::permanent(Reason::Rejected, detail).with_status(status));
    }
    Ok(status)
}

// === the export ===

fn export(message: &Message<'_>) -> ExportRequest {
    let alert = message.alert;
    let namespace = origin::plain(&alert.namespace);
    let resource = [
        ("service.instance.id", alert.uid.clone()),
        ("service.name", format!("{namespace}/{}", alert.name)),
        ("service.namespace", namespace.to_owned()),
    ];
    let scope_spans = ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "flux:notification-controller".into(),
        }),
        spans: vec![span(message)],
    };
    let resource_spans = ResourceSpans {
        resource: Some(Resource {
            attributes: resource.map(|(key, value)| attribute(key, &value)).into(),
        }),
        scope_spans: vec![scope_spans],
        schema_url: CONVENTIONS.into(),
    };
    ExportRequest {
        resource_spans: vec![resource_spans],
    }
}

fn span(message: &Message<'_>) -> Span {
    let (event, object) = (message.event, message.object);
    let own = [
        ("k8s.cluster.name", message.cluster().unwrap_or_default()),
        ("object.uid", object.uid.as_str()),
        ("object.kind", &object.kind),
        ("object.name", &object.name),
        ("object.namespace", &object.namespace),
    ];
    // Keys are unique in a span, and metadata takes precedence over the event's fields.
    let own = present(own).filter(|(key, _)| !message.metadata.contains_key(*key));
    let links = message
        .links()
        .iter()
        .map(|link| attribute(&format!("link.{}", link.key), &link.url));
    let start = nanoseconds(message.unix_seconds(), 0);
    let received = event
        .received_at
        .map_or(start, |time| nanoseconds(time.seconds, time.nanos));
    Span {
        trace_id: trace_id(message),
        span_id: Sha256::digest(message.delivery_id)[..8].to_vec(),
        name: format!("{}: {}/{}", object.kind, object.namespace, object.name),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: received.max(start),
        attributes: own
            .chain(message.fields())
            .map(|(key, value)| attribute(key, value))
            .chain(links)
            .collect(),
        status: Some(match message.is_error() {
            true => Status {
                message: message.titled_text(),
                code: StatusCode::Error.into(),
            },
            false => Status {
                message: String::new(),
                code: StatusCode::Ok.into(),
            },
        }),
        flags: FLAGS,
    }
}

/// One trace for each revision and alert, with the same id as in Flux, so that traces stay whole
/// during a migration.
fn trace_id(message: &Message<'_>) -> Vec<u8> {
    let metadata = message.metadata;
    let revision = match (
        metadata.get("app-version"),
        metadata.get("oci-digest"),
        metadata.get("revision"),
    ) {
        (Some(version), Some(digest), _) => format!("{version}@{digest}"),
        (_, _, Some(revision)) => revision.clone(),
        _ => "unknown".to_owned(),
    };
    Sha256::digest(format!("{}:{revision}", message.alert.uid))[..16].to_vec()
}

fn nanoseconds(seconds: i64, nanos: i32) -> u64 {
    u64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)).unwrap_or_default()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue {
        value: Some(Value::String(value.to_owned())),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::otlp::PartialSuccess;
    use super::*;
    use crate::notifier::sample::{self, Sample};

    fn pairs(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
        attributes.iter().map(pair).collect()
    }

    fn pair(attribute: &KeyValue) -> (&str, &str) {
        match attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref())
        {
            Some(Value::String(text)) => (&attribute.key, text),
            None => panic!("{attribute:?} has no text"),
        }
    }

    fn spans(request: &Request) -> Vec<Span> {
        let mut export = ExportRequest::decode(request.body.as_ref()).unwrap();
        export.resource_spans.remove(0).scope_spans.remove(0).spans
    }

    #[tokio::test]
    async fn an_event_becomes_a_span() {
        let mut event = Sample::error();
        event.alert.uid = "a10a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f".into();
        event.event.received_at = event.event.timestamp.map(|mut time| {
            time.nanos = 5;
            time
        });
        let provider = sample::provider("otel", |provider| {
            provider.address = "http://otel.example.com:4318".into()
        });
        let request = sample::request(&TYPE, &provider, &event).await;
        assert_eq!(
            request.url.as_str(),
            "http://otel.example.com:4318/v1/traces"
        );
        assert_eq!(request.headers["content-type"], PROTOBUF);
        let mut export = ExportRequest::decode(request.body.as_ref()).unwrap();
        let mut resource_spans = export.resource_spans.remove(0);
        assert_eq!(
            pairs(&resource_spans.resource.unwrap().attributes),
            [
                (
                    "service.instance.id",
                    "a10a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f"
                ),
                ("service.name", "apps/webapp-alert"),
                ("service.namespace", "apps"),
            ]
        );
        assert_eq!(resource_spans.schema_url, CONVENTIONS);
        let scope_spans = resource_spans.scope_spans.remove(0);
        assert_eq!(
            scope_spans.scope.unwrap().name,
            "flux:notification-controller"
        );
        let span = &scope_spans.spans[0];
        assert_eq!(
            (span.name.as_str(), span.kind()),
            ("Kustomization: apps/webapp", SpanKind::Internal)
        );
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5);
        assert_eq!(
            (span.trace_id.len(), span.span_id.len(), span.flags),
            (16, 8, 0x301)
        );
        let status = span.status.as_ref().unwrap();
        assert_eq!(
            (status.code(), status.message.as_str()),
            (StatusCode::Error, event.event.message.as_str())
        );
        assert_eq!(
            pairs(&span.attributes),
            [
                ("object.uid", "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f"),
                ("object.kind", "Kustomization"),
                ("object.name", "webapp"),
                ("object.namespace", "apps"),
                ("summary", "Production is affected"),
                ("cluster", "prod-1"),
                (
                    "revision",
                    "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291"
                ),
            ]
        );
    }

    #[tokio::test]
    async fn a_revision_has_one_trace() {
        let mut event = Sample::info();
        event.alert.uid = "a10a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f".into();
        let mut ids = Vec::new();
        for (key, value) in [
            ("revision", "main@sha1:8f5d"),
            ("app-version", "1.2.3"),
            ("oci-digest", "sha256:ab"),
        ] {
            event.metadata.insert(key.into(), value.into());
            ids.push(
                spans(&sample::request(&TYPE, &sample::provider("otel", |_| {}), &event).await)[0]
                    .trace_id
                    .clone(),
            );
        }
        let expected = |revision: &str| {
            Sha256::digest(format!("{}:{revision}", event.alert.uid))[..16].to_vec()
        };
        assert_eq!(
            ids,
            [
                expected("main@sha1:8f5d"),
                expected("main@sha1:8f5d"),
                expected("1.2.3@sha256:ab")
            ]
        );
    }

    #[tokio::test]
    async fn credentials_are_used_with_and_without_headers() {
        let header = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect()
        };
        for (username, secret, headers, expected) in [
            ("", vec![], header(&[("X-Scope-OrgID", "t1")]), None),
            ("", vec![("token", "ot")], header(&[]), Some("Bearer ot")),
            (
                "su",
                vec![("token", "ot")],
                header(&[("X-A", "b")]),
                Some("Basic c3U6b3Q="),
            ),
            (
                "su",
                vec![("username", "su"), ("password", "ot")],
                header(&[]),
                Some("Basic c3U6b3Q="),
            ),
            (
                "",
                vec![("token", "ot")],
                header(&[("authorization", "Custom x")]),
                Some("Custom x"),
            ),
        ] {
            let provider = sample::provider("otel", |provider| {
                provider.username = username.into();
                provider.secret = sample::secret(&secret);
                provider.headers = headers;
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

    #[tokio::test]
    async fn an_event_of_a_helm_repository_is_skipped() {
        let mut event = Sample::info();
        event.event.involved_object.as_mut().unwrap().kind = "HelmRepository".into();
        assert!(
            sample::requests(&TYPE, &sample::provider("otel", |_| {}), &event)
                .await
                .is_empty()
        );
    }

    #[test]
    fn only_statuses_that_the_protocol_names_are_retried() {
        for (status, expected) in [
            (200, None),
            (400, Some((Reason::Rejected, false))),
            (401, Some((Reason::Unauthorized, true))),
            (408, Some((Reason::Timeout, false))),
            (429, Some((Reason::RateLimited, true))),
            (500, Some((Reason::ServerError, false))),
            (502, Some((Reason::ServerError, true))),
            (503, Some((Reason::ServerError, true))),
            (504, Some((Reason::ServerError, true))),
        ] {
            assert_eq!(
                sample::meaning(check(&sample::response(status, ""))),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn a_span_that_an_accepted_export_rejects_is_permanent() {
        let partial = |rejected_spans| {
            let partial_success = Some(PartialSuccess {
                rejected_spans,
                error_message: "too old".into(),
            });
            let mut response =
                sample::with_header(sample::response(200, ""), "content-type", PROTOBUF);
            response.body = ExportResponse { partial_success }.encode_to_vec();
            response
        };
        assert_eq!(
            sample::meaning(check(&partial(1))),
            Some((Reason::Rejected, false))
        );
        assert_eq!(sample::meaning(check(&partial(0))), None);
    }
}
