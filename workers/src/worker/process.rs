//! What becomes of a message: everything up to the end of its attempt.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidings_core::bus::NotStored;
use tidings_core::bus::pull::Pulled;
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::failpoint;
use tidings_core::{
    Delivery, Destination, Event, Failure, ProviderReference, Reason, Timestamp as ProtoTimestamp,
};
use tidings_rules::Unresolved;

use super::{Held, Worker, notification};
use crate::attempt::{Prepared, attempt_once};
use crate::message::Message;
use crate::newest_wins::{Kept, record_key};
use crate::notifier::contract::Notifier;
use crate::throttle::caller::{Caller, Refusal, not_now};
use crate::throttle::{Call, Parking};
use crate::worker::decide::Tried;
use crate::worker::report::reference;

/// Deliveries to a suspended Provider look again this often.
const SUSPENDED_FOR: Duration = Duration::from_secs(60);

/// What to do with a message, and what to tell of it.
pub(super) enum Fate {
    /// Acknowledge it: it was dealt with when it came the first time.
    Known,
    /// Acknowledge it once it is parked, unchanged: nothing was attempted.
    Wait {
        place: String,
        parking: Parking,
        planned_at: Option<ProtoTimestamp>,
    },
    /// Acknowledge it once it is under the subject of its provider's present type.
    Move(&'static str),
    /// An attempt has ended.
    Tried {
        place: String,
        tried: Tried,
        other: Option<String>,
    },
    /// Its age ends before its destination is called again; nothing was attempted.
    GiveUp(String),
    /// The bus can't be asked: leave it, it comes again.
    Leave(NotStored),
}

impl Fate {
    /// Its processing panicked. It is parked at its own place: its state may be nowhere else.
    pub(super) fn crashed(delivery: &Delivery) -> Self {
        let result = Err(Failure::transient(Reason::Crashed, "the attempt panicked"));
        let (started, took) = (Timestamp::now(), Duration::ZERO);
        let tried = Tried {
            started,
            took,
            result,
            newest: None,
            template_error: String::new(),
        };
        Self::Tried {
            place: delivery.id.clone(),
            tried,
            other: None,
        }
    }
}

enum Unprepared {
    Failed(Failure),
    Suspended,
}

impl Worker {
    /// Everything up to the end of the attempt. `retry` is set once the Provider is known, for
    /// whatever comes after.
    pub(super) async fn process(
        &self,
        delivery: &Delivery,
        held: &Held,
        retry: &mut RetryPolicy,
    ) -> Fate {
        let pulled = &held.pulled;
        let started = Timestamp::now();
        let clock = Instant::now();
        let failed = |failure| Fate::Tried {
            place: delivery.id.clone(),
            tried: Tried {
                started,
                took: clock.elapsed(),
                result: Err(failure),
                newest: None,
                template_error: String::new(),
            },
            other: None,
        };
        if pulled.delivered >= 2 {
            match self
                .bus
                .is_parked_by(delivery, &delivery.id, pulled.sequence)
                .await
            {
                Ok(true) => return Fate::Known,
                Ok(false) => {}
                Err(error) => return Fate::Leave(error),
            }
        }
        let prepared = match self.prepare(delivery) {
            Ok(prepared) => prepared,
            Err(Unprepared::Failed(failure)) => return failed(failure),
            Err(Unprepared::Suspended) => {
                let (place, parking) =
                    (delivery.id.clone(), self.spread(SUSPENDED_FOR, "suspended"));
                return Fate::Wait {
                    place,
                    parking,
                    planned_at: delivery.planned_at,
                };
            }
        };
        *retry = prepared.provider.retry;
        if prepared.provider.kind.name != reference(delivery).r#type {
            return Fate::Move(prepared.provider.kind.name);
        }
        let event = match self.event(delivery).await {
            Ok(Some(event)) => event,
            Ok(None) => {
                return failed(Failure::permanent(
                    Reason::EventGone,
                    "its event is no longer stored",
                ));
            }
            Err(error) => return Fate::Leave(error),
        };
        self.attempt(delivery, &event, &prepared, held, (started, clock))
            .await
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        event: &Event,
        prepared: &Prepared,
        held: &Held,
        (started, clock): (Timestamp, Instant),
    ) -> Fate {
        let object = event.involved_object.clone().unwrap_or_default();
        let alert = delivery.alert.clone().unwrap_or_default();
        failpoint::reach_for("worker:calling", &event.message);
        let told = notification(delivery, event, &object, &alert, prepared);
        let rendered = self.renderer.rendered(
            &told,
            &prepared.provider,
            prepared.provider_type.content,
            || self.providers.template(delivery),
        );
        let notification = Message {
            rendered: &rendered,
            ..told
        };
        let mut place = delivery.id.clone();
        if let Notifier::State(notifier) = &prepared.notifier
            && let Ok(Some(desired)) = notifier.desire(&notification)
        {
            place = record_key(&desired.key);
            let Pulled {
                delivered,
                sequence,
                ..
            } = held.pulled;
            if delivered >= 2
                && matches!(
                    self.bus.is_parked_by(delivery, &place, sequence).await,
                    Ok(true)
                )
            {
                return Fate::Known;
            }
        }
        let call = Call {
            destination: Arc::new(Destination::channel(
                &prepared.provider.namespace,
                &prepared.provider.name,
                notification.channel,
            )),
            provider: &prepared.provider,
            delivery,
            planned_at: delivery.planned_at,
            slot_ms: delivery.slot_ms,
            place: &place,
            spare: held.spare,
            room: &held.room,
        };
        let mut caller = Caller::new(&self.throttle, call);
        let kept = self
            .attempt_with_memory(prepared, &notification, delivery, &mut caller)
            .await;
        // Deliveries of a key are parked at one place: what waits there waits for the newest state.
        let planned_at = caller.planned_at();
        match caller.end().await {
            None => {}
            Some(Refusal::Park(parking)) => {
                return Fate::Wait {
                    place,
                    parking,
                    planned_at,
                };
            }
            Some(Refusal::GiveUp(why)) => return Fate::GiveUp(why),
            Some(Refusal::NotKnown(error)) => return Fate::Leave(error),
        }
        let (result, other, newest) = match kept {
            Ok(Kept::Wait(wait)) => {
                // It takes the place of what waits there already, and must not cost that one its
                // slot.
                let slot_ms = match delivery.slot_ms {
                    0 => self
                        .bus
                        .parked_slot(delivery, &place)
                        .await
                        .unwrap_or_default(),
                    own => own,
                };
                let parking = Parking {
                    slot_ms,
                    ..self.spread(wait, "waiting")
                };
                return Fate::Wait {
                    place,
                    parking,
                    planned_at,
                };
            }
            Ok(Kept::Ended { ended, other }) => (Ok(ended), other, None),
            Ok(Kept::Failed {
                failure,
                is_noted: true,
                planned_at,
            }) => (Err(failure), None, planned_at),
            // Its state is nowhere but in this delivery: at the key's place another could push it
            // out.
            Ok(Kept::Failed {
                failure,
                is_noted: false,
                ..
            })
            | Err(failure) => {
                place.clone_from(&delivery.id);
                (Err(failure), None, None)
            }
        };
        let template_error = rendered.template_error.clone();
        let tried = Tried {
            started,
            took: clock.elapsed(),
            result,
            newest,
            template_error,
        };
        Fate::Tried {
            place,
            tried,
            other,
        }
    }

    async fn attempt_with_memory(
        &self,
        prepared: &Prepared,
        notification: &Message<'_>,
        delivery: &Delivery,
        caller: &mut Caller<'_>,
    ) -> Result<Kept, Failure> {
        let Notifier::State(notifier) = &prepared.notifier else {
            if !caller.may_call().await {
                return Err(not_now());
            }
            let result = attempt_once(prepared, notification).await;
            caller.saw(result.as_ref().err());
            let ended = result?;
            failpoint::reach("worker:accepted");
            return Ok(Kept::Ended { ended, other: None });
        };
        // Boxed, like all that is rare beside a message: so that the common way stays small.
        let kept = Box::pin(self.newest_wins.keep(
            notifier.as_ref(),
            notification,
            delivery,
            prepared,
            caller,
        ))
        .await;
        match kept {
            Ok(Kept::Failed {
                failure,
                is_noted,
                planned_at,
            }) => Ok(Kept::Failed {
                failure: prepared.redacted(failure),
                is_noted,
                planned_at,
            }),
            Ok(kept) => Ok(kept),
            Err(failure) => Err(prepared.redacted(failure)),
        }
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Arc<Prepared>, Unprepared> {
        let ProviderReference {
            namespace, name, ..
        } = reference(delivery);
        let provider = self
            .providers
            .resolve(namespace, name)
            .map_err(|unresolved| match unresolved {
                Unresolved::Missing(why) => {
                    Unprepared::Failed(Failure::transient(Reason::Missing, why))
                }
                Unresolved::Invalid(why) => {
                    Unprepared::Failed(Failure::permanent(Reason::Misconfigured, why))
                }
                Unresolved::Suspended(_) => Unprepared::Suspended,
            })?;
        self.notifiers.prepare(provider).map_err(Unprepared::Failed)
    }

    async fn event<'a>(&self, delivery: &'a Delivery) -> Result<Option<Cow<'a, Event>>, NotStored> {
        match &delivery.event {
            Some(event) => Ok(Some(Cow::Borrowed(event))),
            None => Ok(self
                .bus
                .event_at(delivery.event_sequence, &delivery.event_id)
                .await?
                .map(Cow::Owned)),
        }
    }

    /// Parked for so long, and a part of it at random more.
    fn spread(&self, wait: Duration, why: &'static str) -> Parking {
        let spread = wait + wait.mul_f64(rand::random::<f64>() / 4.0) + Duration::from_millis(50);
        Parking {
            until: self.bus.clock().after(spread),
            may_be_woken: false,
            slot_ms: 0,
            why,
        }
    }
}
