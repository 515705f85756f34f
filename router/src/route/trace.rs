//! The span `route` of an event.

use async_nats::HeaderMap;
use tidings_core::Event;
use tidings_core::bus::streams;
use tidings_core::runtime::metrics::labels::RoutingOutcome;
use tidings_core::runtime::traces::{self, Kind, Span, TraceContext};

/// Starts the span of an event, in the trace that its message carries. A postponed event, which is
/// read without its message, begins a trace.
pub(crate) fn start(event: &Event, headers: Option<&HeaderMap>) -> Span {
    let parent = traces::parent(|| TraceContext::of_message(headers));
    let mut span = Span::start("route", Kind::Consumer, parent.as_ref());
    if span.is_recorded() {
        span.set("messaging.system", "nats");
        span.set("messaging.operation.type", "process");
        span.set("messaging.destination.name", streams::EVENTS);
        span.set_text("tidings.event.id", &event.id);
        span.set_text("tidings.cluster", &event.cluster);
    }
    span
}

/// Describes how the event was routed.
pub(crate) fn describe(span: &mut Span, deliveries: usize, outcome: RoutingOutcome) {
    if span.is_recorded() {
        let deliveries = i64::try_from(deliveries).unwrap_or(i64::MAX);
        span.set("tidings.deliveries", deliveries);
        span.set("tidings.outcome", outcome.as_str());
    }
}
