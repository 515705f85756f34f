//! What is told of each attempt: counted, logged once, published for whom it may concern.

use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::runtime::metrics::labels::{
    AttemptLabels, DeliveryLabels, DeliveryOutcome, TypeLabel,
};
use tidings_core::runtime::metrics::{Gauge, Metrics};
use tidings_core::wire::Outcome as ToldOutcome;
use tidings_core::{Attempt, Delivery, Event, Outcome, ProviderReference, Reason};

use crate::worker::decide::Tried;

/// Tells how attempts end.
pub struct Reporter {
    bus: Bus,
    metrics: Metrics,
}

impl Reporter {
    /// Tells on this bus and counts in these metrics.
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        Self { bus, metrics }
    }

    /// Counts, logs and tells how an attempt ended.
    pub async fn report(
        &self,
        delivery: &Delivery,
        tried: &Tried,
        attempt: Attempt,
        other: Option<String>,
    ) {
        let provider = reference(delivery);
        let kind = provider.r#type.clone();
        let (outcome, reason) = match &tried.result {
            Ok(ended) => (ended.outcome, None),
            Err(failure) if attempt.outcome == Outcome::Dead.as_str() => {
                (Outcome::Dead, Some(failure.reason))
            }
            Err(failure) => (Outcome::Retrying, Some(failure.reason)),
        };
        self.metrics
            .worker_attempts_total
            .get_or_create(&AttemptLabels {
                r#type: kind.clone(),
                outcome,
                reason,
            })
            .inc();
        self.count(&kind, outcome);
        if !attempt.template_error.is_empty() {
            self.metrics
                .worker_template_errors_total
                .get_or_create(&TypeLabel {
                    r#type: kind.clone(),
                })
                .inc();
            tracing::warn!(
                code = codes::TEMPLATE_FAILED,
                delivery.id,
                error = attempt.template_error,
                "template failed, standard text sent"
            );
        }
        if outcome == Outcome::Delivered
            && let Some(age) = delivery.event.as_ref().and_then(age)
        {
            self.metrics
                .worker_delivery_seconds
                .get_or_create(&TypeLabel { r#type: kind })
                .observe(age.as_secs_f64());
        }
        match outcome {
            Outcome::Retrying => tracing::warn!(code = codes::DELIVERY_PARKED,
                delivery.id, provider = %format!("{}/{}", provider.namespace, provider.name), attempt = attempt.number, reason = reason.map(Reason::as_str),
                detail = attempt.detail, "delivery parked"
            ),
            Outcome::Dead => tracing::error!(code = codes::DELIVERY_DEAD,
                delivery.id, provider = %format!("{}/{}", provider.namespace, provider.name), attempt = attempt.number, reason = reason.map(Reason::as_str),
                detail = attempt.detail, "delivery dead"
            ),
            _ => tracing::debug!(
                code = codes::ATTEMPT_ENDED,
                delivery.id,
                outcome = outcome.as_str(),
                attempt = attempt.number,
                "attempt ended"
            ),
        }
        let told = ToldOutcome {
            delivery_id: delivery.id.clone(),
            event_id: delivery.event_id.clone(),
            cluster: delivery
                .event
                .as_ref()
                .map(|event| event.cluster.clone())
                .unwrap_or_default(),
            alert: delivery.alert.clone(),
            provider: delivery.provider.clone(),
            attempt: Some(attempt),
            planned_at: delivery.planned_at.filter(|_| delivery.generation == 0),
        };
        if let Some(other) = other {
            let delivered = Attempt {
                outcome: Outcome::Delivered.as_str().to_owned(),
                ..Attempt::default()
            };
            let told = ToldOutcome {
                delivery_id: other,
                attempt: Some(delivered),
                provider: told.provider.clone(),
                ..ToldOutcome::default()
            };
            self.bus.publish_outcome(&told).await;
        }
        self.bus.publish_outcome(&told).await;
    }

    /// Counts what became of a message of this type.
    pub fn count(&self, kind: &str, outcome: impl Into<DeliveryOutcome>) {
        self.metrics
            .worker_deliveries_total
            .get_or_create(&DeliveryLabels {
                r#type: kind.to_owned(),
                outcome: outcome.into(),
            })
            .inc();
    }

    /// A message is in our hands, until what this gives is dropped.
    pub fn hold(&self) -> Holding {
        self.metrics.worker_deliveries_in_flight.inc();
        Holding(self.metrics.worker_deliveries_in_flight.clone())
    }
}

/// Counts a message as held.
pub struct Holding(Gauge);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The Provider of a delivery, as it was planned.
pub fn reference(delivery: &Delivery) -> &ProviderReference {
    static NONE: ProviderReference = ProviderReference {
        namespace: String::new(),
        name: String::new(),
        r#type: String::new(),
        pool: String::new(),
    };
    delivery.provider.as_ref().unwrap_or(&NONE)
}

fn age(event: &Event) -> Option<Duration> {
    let received = event.received_at.as_ref()?;
    let received = Timestamp::new(received.seconds, received.nanos).ok()?;
    Duration::try_from(Timestamp::now().duration_since(received)).ok()
}
