//! Traces: what happened to an event, from the request to the answers of the services, as spans
//! that are exported by OTLP. Off unless `otlp.endpoint` is set.
//!
//! ```text
//!  request ─ traceparent ─► span `ingest` ─ header of the event ─► span `route`
//!                                        header of each delivery ─┴─► span `deliver`, per attempt
//! ```
//!
//! The context travels in the headers `traceparent` and `tracestate` of the messages. A delivery
//! that is stored again keeps it, so all its attempts have the same parent. Spans hold ids, names
//! and outcomes: neither texts of events nor addresses nor secrets.

mod exporter;
mod headers;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan, SpanLimits,
};

use crate::runtime::config::{OtlpSettings, Role};
use crate::runtime::metrics::Metrics;

pub use exporter::Exporter;
pub(crate) use headers::carry;
pub use headers::{TraceContext, carrying};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Turns traces on for this process. `None` if no endpoint is set. The exporter must run.
///
/// # Errors
/// The HTTP client cannot be built.
pub fn start(
    settings: &OtlpSettings,
    role: Role,
    metrics: &Metrics,
) -> Result<Option<Exporter>, reqwest::Error> {
    let Some(endpoint) = &settings.endpoint else {
        return Ok(None);
    };
    let resource = Resource::builder_empty()
        .with_service_name("tidings")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance_id()),
            KeyValue::new("tidings.role", role.as_str()),
        ])
        .build();
    let (queue, exporter) = exporter::new(endpoint, settings, &resource, metrics)?;
    let ratio = Sampler::TraceIdRatioBased(settings.sampling.get());
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_span_limits(SpanLimits::default())
        .with_span_processor(queue)
        .build();
    // The tracer of a process is set once.
    let _ = TRACER.set(provider.tracer("tidings"));
    Ok(Some(exporter))
}

/// Distinguishes the processes of a role.
fn instance_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Reads the context of a parent, unless traces are off.
pub fn parent(read: impl FnOnce() -> Option<TraceContext>) -> Option<TraceContext> {
    TRACER.get().and_then(|_| read())
}

/// What a span is about.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A request that Tidings answers.
    Server,
    /// A message that Tidings processes.
    Consumer,
    /// A call of a service.
    Client,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Consumer => Self::Consumer,
            Kind::Client => Self::Client,
        }
    }
}

/// A span that ends when it is dropped. Nothing while traces are off.
#[derive(Default)]
pub struct Span(Option<Box<SdkSpan>>);

impl Span {
    /// Starts a span.
    pub fn start(name: &'static str, kind: Kind, parent: Option<&TraceContext>) -> Self {
        Self::start_at(name, kind, parent, SystemTime::now())
    }

    fn start_at(
        name: &'static str,
        kind: Kind,
        parent: Option<&TraceContext>,
        started: SystemTime,
    ) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind.into())
            .with_start_time(started);
        let parent = parent.map_or_else(Context::new, TraceContext::as_parent);
        Self(Some(Box::new(tracer.build_with_context(builder, &parent))))
    }

    /// Records a span that ended.
    pub fn past(
        name: &'static str,
        kind: Kind,
        parent: Option<&TraceContext>,
        (started, took): (SystemTime, Duration),
        describe: impl FnOnce(&mut Self),
    ) -> Self {
        let mut span = Self::start_at(name, kind, parent, started);
        describe(&mut span);
        if let Some(span) = &mut span.0 {
            span.end_with_timestamp(started + took);
        }
        span
    }

    /// Whether the span is exported.
    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Sets an attribute to a text, which is copied only while traces are on.
    pub fn set_text(&mut self, key: &'static str, text: &str) {
        if self.is_recorded() {
            self.set(key, text.to_owned());
        }
    }

    /// Notes that what the span is about failed, with the class of the error.
    pub fn fail(&mut self, class: impl Into<Cow<'static, str>>) {
        self.set("error.type", class.into());
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(""));
        }
    }

    /// The context of what happens within the span.
    pub fn context(&self) -> Option<TraceContext> {
        let span = self.0.as_ref()?;
        Some(TraceContext::within(span.span_context()))
    }

    /// The id of the trace, if it is exported.
    pub fn trace_id(&self) -> Option<String> {
        let span = self.0.as_ref()?.span_context().clone();
        span.is_sampled().then(|| span.trace_id().to_string())
    }
}
