//! Applies a decision: stores what has to be stored, acknowledges the message, then reports.

use jiff::Timestamp;
use tidings_core::Delivery;
use tidings_core::bus::pull::Pulled;
use tidings_core::bus::{BusError, publish};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint::reach;
use tidings_core::runtime::traces::{TraceContext, carrying};

use super::Worker;
use crate::worker::decide::{Decision, Disposition, Processed, decide};
use crate::worker::report::reference;
use crate::worker::trace;

impl Worker {
    /// Decides about a processed message, applies the decision and reports it.
    pub(super) async fn finish(&self, delivery: &Delivery, processed: Processed, pulled: &Pulled) {
        // It stays with the delivery wherever that is stored next.
        let parent = TraceContext::of_message(pulled.message.headers.as_ref());
        let decision = decide(delivery, &processed, Timestamp::now(), rand::random());
        if let Disposition::Leave(error) = &decision.disposition {
            tracing::warn!(
                code = codes::DELIVERY_LEFT,
                delivery.id,
                %error,
                "delivery not processed; it is redelivered"
            );
        } else {
            let storing = self.store(&decision.disposition, &processed.park_key, pulled.sequence);
            carrying(parent.clone(), storing).await;
            self.acknowledge(pulled).await;
        }
        let next_attempt = match &decision.disposition {
            Disposition::Retry(_, wait) => Some(self.bus.clock().after(*wait)),
            _ => None,
        };
        let Decision {
            outcome, report, ..
        } = decision;
        self.reporter.count(reference(delivery), outcome);
        if let Some(report) = report {
            let span = trace::record(delivery, &processed, &report, parent.as_ref());
            let reporting = self.reporter.report(delivery, report, next_attempt, &span);
            reporting.await;
        }
    }

    /// Stores what the disposition asks for. `sequence` is that of the message to acknowledge.
    async fn store(&self, disposition: &Disposition, park_key: &str, sequence: u64) {
        let bus = &self.bus;
        match disposition {
            Disposition::Acknowledge | Disposition::Leave(_) => {}
            Disposition::Retry(delivery, wait) => {
                reach("worker:parking");
                until_stored(|| bus.park(delivery, park_key, sequence, *wait)).await;
                reach("worker:parked");
            }
            Disposition::Park(delivery, park) => {
                reach("worker:parking");
                until_stored(|| {
                    bus.park_until(delivery, park_key, sequence, park.until, park.may_be_woken)
                })
                .await;
                reach("worker:parked");
            }
            Disposition::Requeue(delivery) => {
                reach("worker:requeueing");
                until_stored(|| bus.requeue(delivery, sequence)).await;
                reach("worker:requeued");
            }
            Disposition::StoreDeadLetter(dead_letter) => {
                reach("worker:storing-dead-letter");
                until_stored(|| bus.store_dead_letter(dead_letter)).await;
                reach("worker:dead-letter-stored");
            }
        }
    }

    /// Waits for the server's confirmation, because a lost acknowledgement causes a second attempt.
    pub(super) async fn acknowledge(&self, pulled: &Pulled) {
        for _ in 0..3 {
            match self.bus.acknowledge(&pulled.message).await {
                Ok(()) => return reach("worker:acknowledged"),
                Err(error) => tracing::debug!(
                    code = codes::ACK_NOT_CONFIRMED,
                    %error,
                    "acknowledgement not confirmed, retrying"
                ),
            }
        }
        tracing::warn!(
            code = codes::ACK_NOT_CONFIRMED,
            sequence = pulled.sequence,
            "acknowledgement not confirmed; the delivery may be redelivered"
        );
    }
}

/// Retries until `store` succeeds, because the message must not be acknowledged before.
async fn until_stored<T, F: Future<Output = Result<T, BusError>>>(store: impl Fn() -> F) -> T {
    let store = || Box::pin(store());
    publish::until_stored(store, |error| {
        tracing::warn!(
            code = codes::RESULT_NOT_STORED,
            %error,
            "result of a delivery not stored, retrying"
        )
    })
    .await
}
