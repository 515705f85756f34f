//! Reports each attempt: counts it, logs it once and publishes it to `OUTCOMES`.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::time::{between, from_proto};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::{
    AttemptLabels, DeliveryLabels, DeliveryOutcome, TraceLabel, TypeLabel,
};
use tidings_core::runtime::metrics::{Gauge, Metrics};
use tidings_core::runtime::traces::Span;
use tidings_core::wire::Outcome as PublishedOutcome;
use tidings_core::{Attempt, Delivery, Event, Outcome, ProviderReference};

use crate::worker::decide::AttemptReport;

/// Reports attempts on the bus and in metrics.
pub struct Reporter {
    bus: Bus,
    metrics: Metrics,
}

impl Reporter {
    /// Publishes on this bus and counts in these metrics.
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        Self { bus, metrics }
    }

    /// Counts, logs and publishes an attempt, whose span is recorded. A parked delivery has a time
    /// of its next attempt.
    pub async fn report(
        &self,
        delivery: &Delivery,
        report: AttemptReport,
        next_attempt: Option<Timestamp>,
        span: &Span,
    ) {
        self.count_attempt(delivery, &report, span);
        log(delivery, &report, next_attempt);
        let outcome = PublishedOutcome {
            delivery_id: delivery.id.clone(),
            event_id: delivery.event_id.clone(),
            cluster: carried_event(delivery)
                .map_or_else(String::new, |event| event.cluster.clone()),
            alert: delivery.alert.clone(),
            provider: delivery.provider.clone(),
            attempt: Some(report.attempt),
            planned_at: delivery.planned_at.filter(|_| delivery.generation == 0),
        };
        if let Some(other) = report.on_behalf_of {
            self.publish_delivered(other, outcome.provider.clone())
                .await;
        }
        let trace = span.context();
        self.bus.publish_outcome(&outcome, trace.as_ref()).await;
    }

    /// Counts the outcome of a message for this Provider; empty if that is not known.
    pub fn count(&self, provider: &ProviderReference, outcome: impl Into<DeliveryOutcome>) {
        let (namespace, name) = self
            .metrics
            .provider_labels(&provider.namespace, &provider.name);
        let labels = DeliveryLabels {
            r#type: provider.r#type.clone(),
            outcome: outcome.into(),
            namespace,
            provider: name,
        };
        self.metrics
            .worker_deliveries_total
            .get_or_create(&labels)
            .inc();
    }

    /// Counts a message as in flight, until the result is dropped.
    pub fn hold(&self) -> Holding {
        self.metrics.worker_deliveries_in_flight.inc();
        Holding(self.metrics.worker_deliveries_in_flight.clone())
    }

    fn count_attempt(&self, delivery: &Delivery, report: &AttemptReport, span: &Span) {
        let provider = reference(delivery);
        let labels = TypeLabel {
            r#type: provider.r#type.clone(),
        };
        let (namespace, name) = self
            .metrics
            .provider_labels(&provider.namespace, &provider.name);
        let attempt_labels = AttemptLabels {
            r#type: labels.r#type.clone(),
            outcome: report.outcome,
            reason: report.reason,
            namespace,
            provider: name,
        };
        self.metrics
            .worker_attempts_total
            .get_or_create(&attempt_labels)
            .inc();
        if !report.attempt.template_error.is_empty() {
            self.metrics
                .worker_template_errors_total
                .get_or_create(&labels)
                .inc();
        }
        if !report.attempt.conflict.is_empty() {
            self.metrics
                .worker_state_conflicts_total
                .get_or_create(&labels)
                .inc();
        }
        if report.outcome == Outcome::Delivered
            && let Some(age) = carried_event(delivery).and_then(age)
        {
            let seconds = age.as_secs_f64();
            let trace = span.trace_id().map(|trace_id| TraceLabel { trace_id });
            let now = trace.is_some().then(SystemTime::now);
            self.metrics
                .worker_delivery_seconds
                .get_or_create(&labels)
                .observe(seconds, trace, now);
        }
    }

    /// Publishes that another delivery was delivered, because this attempt wrote its state.
    async fn publish_delivered(&self, delivery_id: String, provider: Option<ProviderReference>) {
        let outcome = Outcome::Delivered.as_str().to_owned();
        let attempt = Some(Attempt {
            outcome,
            ..Attempt::default()
        });
        let outcome = PublishedOutcome {
            delivery_id,
            attempt,
            provider,
            ..PublishedOutcome::default()
        };
        self.bus.publish_outcome(&outcome, None).await;
    }
}

/// A message that is counted as in flight.
pub struct Holding(Gauge);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The Provider of a delivery, as it was when the delivery was planned.
pub fn reference(delivery: &Delivery) -> &ProviderReference {
    static NONE: ProviderReference = ProviderReference {
        namespace: String::new(),
        name: String::new(),
        r#type: String::new(),
        pool: String::new(),
    };
    delivery.provider.as_ref().unwrap_or(&NONE)
}

fn log(delivery: &Delivery, report: &AttemptReport, next_attempt: Option<Timestamp>) {
    let AttemptReport {
        attempt, outcome, ..
    } = report;
    let provider = reference(delivery);
    let provider = format_args!("{}/{}", provider.namespace, provider.name);
    if !attempt.template_error.is_empty() {
        tracing::warn!(
            code = codes::TEMPLATE_FAILED,
            delivery.id,
            event.id = delivery.event_id,
            error = attempt.template_error,
            "template failed, standard text sent"
        );
    }
    if !attempt.conflict.is_empty() {
        tracing::warn!(
            code = codes::STATE_CONFLICT,
            delivery.id,
            event.id = delivery.event_id,
            %provider,
            conflict = attempt.conflict,
            "two clusters write the same commit status"
        );
    }
    match outcome {
        Outcome::Retrying => tracing::warn!(
            code = codes::DELIVERY_PARKED,
            delivery.id,
            event.id = delivery.event_id,
            %provider,
            attempt = attempt.number,
            reason = attempt.reason,
            detail = attempt.detail,
            next_attempt = next_attempt.map(|time| format!("{time:.3}")),
            "delivery parked"
        ),
        Outcome::Dead => tracing::error!(
            code = codes::DELIVERY_DEAD,
            delivery.id,
            event.id = delivery.event_id,
            %provider,
            attempt = attempt.number,
            reason = attempt.reason,
            detail = attempt.detail,
            "delivery dead"
        ),
        Outcome::Delivered | Outcome::Duplicate | Outcome::Superseded | Outcome::Skipped => {
            tracing::debug!(
                code = codes::ATTEMPT_ENDED,
                delivery.id,
                event.id = delivery.event_id,
                outcome = outcome.as_str(),
                attempt = attempt.number,
                "attempt ended"
            )
        }
    }
}

fn age(event: &Event) -> Option<Duration> {
    from_proto(event.received_at).map(|received| between(received, Timestamp::now()))
}
