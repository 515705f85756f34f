//! The span `deliver` of an attempt.

use std::time::SystemTime;

use tidings_core::bus::streams;
use tidings_core::runtime::traces::{Kind, Span, TraceContext};
use tidings_core::{Delivery, Outcome};

use super::decide::{AttemptReport, Processed};
use super::report::reference;

/// Records the span of an attempt that ended. All attempts of a delivery have the same parent.
pub(super) fn record(
    delivery: &Delivery,
    processed: &Processed,
    report: &AttemptReport,
    parent: Option<&TraceContext>,
) -> Span {
    let times = (SystemTime::from(processed.started), processed.took);
    Span::past("deliver", Kind::Client, parent, times, |span| {
        if span.is_recorded() {
            describe(span, delivery, report);
        }
    })
}

fn describe(span: &mut Span, delivery: &Delivery, report: &AttemptReport) {
    span.set("messaging.system", "nats");
    span.set("messaging.operation.type", "process");
    span.set("messaging.destination.name", streams::DELIVERIES);
    span.set_text("tidings.event.id", &delivery.event_id);
    span.set_text("tidings.delivery.id", &delivery.id);
    let provider = reference(delivery);
    span.set_text("tidings.provider.type", &provider.r#type);
    span.set(
        "tidings.provider",
        format!("{}/{}", provider.namespace, provider.name),
    );
    if let Some(alert) = &delivery.alert {
        span.set(
            "tidings.alert",
            format!("{}/{}", alert.namespace, alert.name),
        );
    }
    let attempt = &report.attempt;
    span.set("tidings.attempt", i64::from(attempt.number));
    span.set("tidings.outcome", report.outcome.as_str());
    if attempt.status > 0 {
        span.set("http.response.status_code", i64::from(attempt.status));
    }
    if matches!(report.outcome, Outcome::Retrying | Outcome::Dead) {
        span.fail(report.reason.map_or("_OTHER", |reason| reason.as_str()));
    }
}
