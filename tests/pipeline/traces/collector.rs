//! A collector that decodes the OTLP requests that it receives.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use tidings_rig::{Received, Receiver, Reply, Role, eventually};

pub struct Collector(Receiver);

/// A span as it was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub is_error: bool,
    attributes: Vec<(String, String)>,
    resource: Vec<(String, String)>,
}

impl Collector {
    pub async fn start() -> Self {
        Self(Receiver::start().await)
    }

    /// A role that sends its traces here.
    pub fn traced(&self, role: Role) -> Role {
        role.env("TIDINGS_OTLP__ENDPOINT", self.0.url())
    }

    pub fn answer_with(&self, reply: Reply) {
        self.0.answer_with(reply);
    }

    pub fn requests(&self) -> Vec<Received> {
        self.0.received()
    }

    /// Waits for this many spans with a name, and the others of a trace. Returns all spans.
    pub async fn has(&self, name: &str, count: usize) -> Vec<Exported> {
        let what = format!("the collector has {count} spans {name:?}");
        eventually(&what, async || {
            let spans = self.spans();
            let is_whole = named(&spans, name).len() >= count
                && !named(&spans, "ingest").is_empty()
                && !named(&spans, "route").is_empty();
            is_whole.then_some(spans)
        })
        .await
    }

    pub fn spans(&self) -> Vec<Exported> {
        self.requests().iter().flat_map(decode).collect()
    }
}

/// The spans with a name.
pub fn named<'a>(spans: &'a [Exported], name: &str) -> Vec<&'a Exported> {
    spans.iter().filter(|span| span.name == name).collect()
}

impl Exported {
    /// The value of an attribute; empty without one.
    pub fn attribute(&self, key: &str) -> &str {
        find(&self.attributes, key)
    }

    /// The value of an attribute of the process; empty without one.
    pub fn resource(&self, key: &str) -> &str {
        find(&self.resource, key)
    }
}

fn find<'a>(attributes: &'a [(String, String)], key: &str) -> &'a str {
    let found = attributes.iter().find(|(name, _)| name == key);
    found.map_or("", |(_, value)| value)
}

fn decode(request: &Received) -> Vec<Exported> {
    assert_eq!(request.target, "POST /hook/v1/traces");
    let kind = request.header("content-type");
    assert_eq!(kind, Some("application/x-protobuf"));
    let decoded = ExportTraceServiceRequest::decode(request.body.clone());
    let decoded = decoded.expect("the body is a request of OTLP");
    let mut exported = Vec::new();
    for process in decoded.resource_spans {
        let resource = texts(process.resource.unwrap_or_default().attributes);
        assert_eq!(find(&resource, "service.name"), "tidings");
        let spans = process
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        exported.extend(spans.map(|span| of(span, &resource)));
    }
    exported
}

fn of(span: Span, resource: &[(String, String)]) -> Exported {
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
    Exported {
        name: span.name,
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
        is_error: span.status.unwrap_or_default().code() == StatusCode::Error,
        attributes: texts(span.attributes),
        resource: resource.to_vec(),
    }
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |attribute: KeyValue| {
        let value = match attribute.value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            value => panic!("{}: an unexpected value {value:?}", attribute.key),
        };
        (attribute.key, value)
    };
    attributes.into_iter().map(text).collect()
}
