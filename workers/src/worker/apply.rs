//! What becomes of a message is stored; then it is acknowledged, then told.

use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use tidings_core::bus::NotStored;
use tidings_core::bus::pull::Pulled;
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::failpoint;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::{Attempt, Delivery, Failure, Outcome, Reason};

use super::Worker;
use super::process::Fate;
use crate::throttle::Parking;
use crate::worker::decide::{Settlement, Tried, letter, settle};
use crate::worker::report::reference;

/// Pauses between tries to reach the bus with what must be stored.
const BUS_PAUSE: Duration = Duration::from_millis(500);

impl Worker {
    pub(super) async fn settle(
        &self,
        mut delivery: Delivery,
        fate: Fate,
        retry: &RetryPolicy,
        pulled: &Pulled,
    ) {
        let kind = reference(&delivery).r#type.clone();
        match fate {
            Fate::Known => {
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, NotAttempted::AlreadyParked);
            }
            Fate::Leave(error) => {
                tracing::warn!(code = codes::DELIVERY_LEFT, delivery.id, %error, "delivery not processed; it is redelivered");
                self.reporter.count(&kind, NotAttempted::Redelivered);
            }
            Fate::Move(present) => {
                delivery.provider.get_or_insert_default().r#type = present.to_owned();
                failpoint::reach("worker:moving");
                Box::pin(until_stored(|| {
                    self.bus.requeue(&delivery, pulled.sequence)
                }))
                .await;
                failpoint::reach("worker:moved");
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, NotAttempted::Requeued);
            }
            Fate::Wait {
                place,
                parking:
                    Parking {
                        until,
                        may_be_woken,
                        slot_ms,
                        why,
                    },
                planned_at,
            } => {
                (delivery.slot_ms, delivery.planned_at) = (slot_ms, planned_at);
                let park = || {
                    self.bus
                        .park_until(&delivery, &place, pulled.sequence, until, may_be_woken)
                };
                failpoint::reach("worker:parking");
                Box::pin(until_stored(park)).await;
                failpoint::reach("worker:parked");
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, why);
            }
            Fate::GiveUp(why) => {
                Box::pin(self.bury_at_once(delivery, Reason::Exhausted, &why, pulled)).await
            }
            Fate::Tried {
                place,
                tried,
                other,
            } => {
                self.settle_tried(delivery, &place, &tried, retry, other, pulled)
                    .await
            }
        }
    }

    async fn settle_tried(
        &self,
        delivery: Delivery,
        place: &str,
        tried: &Tried,
        retry: &RetryPolicy,
        other: Option<String>,
        pulled: &Pulled,
    ) {
        let (settlement, attempt) =
            settle(&delivery, tried, retry, Timestamp::now(), rand::random());
        match &settlement {
            Settlement::Done => {}
            Settlement::Park(parked, wait) => {
                failpoint::reach("worker:parking");
                Box::pin(until_stored(|| {
                    self.bus.park(parked, place, pulled.sequence, *wait)
                }))
                .await;
                failpoint::reach("worker:parked");
            }
            Settlement::Bury(letter) => {
                failpoint::reach("worker:burying");
                Box::pin(until_stored(|| self.bus.store_dead_letter(letter))).await;
                failpoint::reach("worker:buried");
            }
        }
        self.acknowledge(pulled).await;
        self.reporter.report(&delivery, tried, attempt, other).await;
    }

    pub(super) async fn bury_at_once(
        &self,
        delivery: Delivery,
        reason: Reason,
        detail: &str,
        pulled: &Pulled,
    ) {
        let letter = letter(delivery.clone(), reason, detail, Timestamp::now());
        until_stored(|| self.bus.store_dead_letter(&letter)).await;
        self.acknowledge(pulled).await;
        let result = Err(Failure::permanent(reason, detail));
        let (started, took) = (Timestamp::now(), Duration::ZERO);
        let tried = Tried {
            started,
            took,
            result,
            newest: None,
            template_error: String::new(),
        };
        let attempt = Attempt {
            number: delivery.attempt + 1,
            outcome: Outcome::Dead.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            detail: detail.to_owned(),
            ..Attempt::default()
        };
        self.reporter.report(&delivery, &tried, attempt, None).await;
    }

    /// Waits for the server's word: an acknowledgement that is lost costs a second delivery.
    pub(super) async fn acknowledge(&self, pulled: &Pulled) {
        for _ in 0..3 {
            match self.bus.acknowledge(&pulled.message).await {
                Ok(()) => return failpoint::reach("worker:acknowledged"),
                Err(error) => {
                    tracing::debug!(code = codes::ACK_NOT_CONFIRMED, %error, "acknowledgement not confirmed, retrying")
                }
            }
        }
        tracing::warn!(
            code = codes::ACK_NOT_CONFIRMED,
            sequence = pulled.sequence,
            "acknowledgement not confirmed; the delivery may be redelivered"
        );
    }
}

/// Tries until it is stored: nothing is acknowledged before. Ends early only with its message being
/// handed back.
async fn until_stored<T, F: Future<Output = Result<T, NotStored>>>(store: impl Fn() -> F) -> T {
    loop {
        match store().await {
            Ok(stored) => return stored,
            Err(error) => {
                tracing::warn!(code = codes::RESULT_NOT_STORED, %error, "result of a delivery not stored, retrying")
            }
        }
        tokio::time::sleep(BUS_PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}
