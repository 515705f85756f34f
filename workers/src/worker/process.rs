//! Processes a message up to the end of its attempt.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use tidings_core::bus::BusError;
use tidings_core::bus::clusters::are_names_of_one_cluster;
use tidings_core::model::time::from_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::{Delivery, Event, Failure, Outcome, Reason};
use tidings_rules::{Family, ResolvedProvider, Unresolved};

use super::{HeldMessage, Worker};
use crate::attempt::{
    AttemptResult, Ended, ParkRequest, Prepared, Refusal, attempt_once, revealed_channel,
};
use crate::memory::{Reservation, needed, needed_for_event, shrink_to, stated_size, within};
use crate::message::Message;
use crate::message::render::Content;
use crate::newest_wins::{StateWrite, record_key};
use crate::notifier::contract::{DesiredState, Notifier};
use crate::text::cut_chars;
use crate::throttle::Call;
use crate::throttle::caller::Caller;
use crate::throttle::limits;
use crate::worker::decide::Processed;
use crate::worker::report::reference;

/// The longest name of a cluster in a conflict, in characters.
const LONGEST_CLUSTER: usize = 100;
/// A delivery to a suspended Provider is parked for this long.
const SUSPENDED_FOR: Duration = Duration::from_secs(60);

/// Whether the delivery is a notice that the next one replaces.
fn is_replaced(delivery: &Delivery, now: Timestamp) -> bool {
    from_proto(delivery.not_after).is_some_and(|end| end <= now)
}

impl Worker {
    /// Processes a message up to the end of its attempt. A panic fails only this attempt, and its
    /// permits are given back.
    pub(super) async fn process(&self, delivery: &Delivery, held: &HeldMessage) -> Processed {
        let (started, clock) = (Timestamp::now(), Instant::now());
        let processing = AssertUnwindSafe(async {
            match self.provider_and_event(delivery, held).await {
                Ok((prepared, event, memory)) => {
                    let attempt = self.attempt(delivery, &event, &prepared, held);
                    // Boxed, so that the future is not copied into the scope.
                    within(memory, Box::pin(attempt)).await
                }
                Err(result) => Processed::new(delivery, result),
            }
        });
        let processed = processing.catch_unwind().await;
        let processed = processed.unwrap_or_else(|_| self.panicked(delivery));
        Processed {
            started,
            took: clock.elapsed(),
            ..processed
        }
    }

    /// The failure of an attempt that panicked. The delivery is parked under its id, because its
    /// state may not be recorded.
    fn panicked(&self, delivery: &Delivery) -> Processed {
        let resolved = catch_unwind(AssertUnwindSafe(|| self.providers.resolve(delivery)));
        let retry = resolved
            .ok()
            .and_then(Result::ok)
            .map(|provider| provider.retry);
        let failure = Failure::transient(Reason::Crashed, "the attempt panicked");
        Processed {
            retry: retry.unwrap_or_default(),
            ..Processed::new(delivery, AttemptResult::failed(failure))
        }
    }

    /// The Provider and the event of a delivery, or why it is not attempted.
    async fn provider_and_event<'a>(
        &self,
        delivery: &'a Delivery,
        held: &HeldMessage,
    ) -> Result<(Arc<Prepared>, Cow<'a, Event>, Arc<Reservation>), AttemptResult> {
        if held.is_redelivered()
            && self
                .bus
                .is_parked_by(delivery, &delivery.id, held.pulled.sequence)
                .await?
        {
            return Err(Refusal::AlreadyParked.into());
        }
        if is_replaced(delivery, self.bus.clock().now()) {
            return Err(Ended::new(Outcome::Superseded, "the next notice replaces it").into());
        }
        let prepared = self.prepare(delivery)?;
        let kind = prepared.provider.kind.name;
        if kind != reference(delivery).r#type {
            return Err(Refusal::TypeChanged(kind).into());
        }
        let memory = self.reserve(delivery, &prepared, held)?;
        let event = self.event(delivery).await?.ok_or_else(|| {
            let why = "the event is no longer stored in EVENTS";
            AttemptResult::failed(Failure::permanent(Reason::EventGone, why))
        })?;
        Ok((prepared, event, Arc::new(memory)))
    }

    /// Reserves the memory for the event and its request, before either exists.
    fn reserve(
        &self,
        delivery: &Delivery,
        prepared: &Prepared,
        held: &HeldMessage,
    ) -> Result<Reservation, Refusal> {
        let event = match &delivery.event {
            Some(_) => None,
            None => Some(stated_size(delivery.event_bytes)),
        };
        let carried = held.pulled.message.payload.len();
        let needed = needed(carried, event, prepared.provider_type.content);
        let reserved = self.memory.reserve(&reference(delivery).namespace, needed);
        let reserved = reserved.map_err(|wait| {
            tracing::debug!(
                code = codes::DELIVERY_HELD_BACK,
                delivery.id,
                needed,
                "delivery does not fit into memory, parked"
            );
            let end = limits::end(delivery.planned_at, &prepared.provider);
            if end.is_some_and(|end| end <= self.bus.clock().now()) {
                let detail = "it did not fit into the memory for deliveries until maxAge";
                return Refusal::GiveUp(Reason::Exhausted, detail.to_owned());
            }
            Refusal::Park(ParkRequest {
                slot_ms: delivery.slot_ms,
                ..ParkRequest::after(&self.bus, wait, NotAttempted::NoMemory)
            })
        })?;
        held.pulled.release_memory();
        Ok(reserved)
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Arc<Prepared>, AttemptResult> {
        let resolved = self.providers.resolve(delivery);
        let provider = resolved.map_err(|unresolved| match unresolved {
            Unresolved::Missing(why) => {
                AttemptResult::failed(Failure::transient(Reason::Missing, why))
            }
            Unresolved::Invalid(why) => {
                AttemptResult::failed(Failure::permanent(Reason::Misconfigured, why))
            }
            Unresolved::Suspended(_) => {
                let request = ParkRequest::after(&self.bus, SUSPENDED_FOR, NotAttempted::Suspended);
                Refusal::Park(request).into()
            }
        })?;
        self.prepared
            .prepare(provider)
            .map_err(AttemptResult::failed)
    }

    /// The event in the delivery, or the stored one if it was too large for the delivery.
    async fn event<'a>(&self, delivery: &'a Delivery) -> Result<Option<Cow<'a, Event>>, BusError> {
        match &delivery.event {
            Some(event) => Ok(Some(Cow::Borrowed(event))),
            None => {
                let event = self
                    .bus
                    .event_at(delivery.event_sequence, &delivery.event_id)
                    .await?;
                Ok(event.map(Cow::Owned))
            }
        }
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        event: &Event,
        prepared: &Prepared,
        held: &HeldMessage,
    ) -> Processed {
        let alert = delivery.alert.clone().unwrap_or_default();
        failpoint::reach_for("worker:calling", &event.message);
        let texts = prepared.texts(delivery, event);
        let content = prepared.provider_type.content;
        if delivery.event.is_none() && content == Content::Event {
            let carried = held.pulled.message.payload.len();
            shrink_to(needed_for_event(carried, &texts.event, &texts.metadata));
        }
        let planned = prepared.message(delivery, &texts, &alert);
        let of_alert = || self.providers.channel(delivery);
        let revealed = match revealed_channel(&planned, &prepared.provider, of_alert) {
            Ok(revealed) => revealed,
            Err(failure) => return self.channel_not_found(delivery, prepared, failure),
        };
        let clusters = self.renderer.clusters();
        let former_clusters = self.renderer.former_clusters(&event.cluster);
        let standard = Message {
            channel: revealed.as_deref().unwrap_or(planned.channel),
            former_clusters: &former_clusters,
            ..planned
        };
        let template = || self.providers.template(delivery);
        let provider = &prepared.provider;
        let rendered = self
            .renderer
            .rendered(&standard, provider, content, template);
        let message = Message {
            rendered: &rendered,
            ..standard
        };
        // A delivery of a state is parked under the state's key, because any delivery of the key
        // writes the newest state.
        let wanted = wanted(prepared, &message).await;
        let state_key = wanted.as_ref().and_then(state_key);
        if let Some(key) = &state_key
            && held.is_redelivered()
            && let Ok(true) = self
                .bus
                .is_parked_by(delivery, key, held.pulled.sequence)
                .await
        {
            return Processed::new(delivery, Refusal::AlreadyParked);
        }
        let park_key = state_key.as_ref().unwrap_or(&delivery.id);
        let call = self.call(delivery, prepared, &message, held, park_key);
        let mut caller = Caller::new(&self.throttle, call);
        let StateWrite {
            result,
            other_cluster,
        } = self
            .call_service(prepared, &message, wanted, delivery, &mut caller)
            .await;
        let is_other = |other: &String| !are_names_of_one_cluster(&clusters, other, &event.cluster);
        let other_cluster = other_cluster.filter(is_other);
        let conflict = other_cluster.and_then(|other| conflict(&prepared.provider, &other, event));
        let planned_at = caller.planned_at();
        caller.end().await;
        let processed = Processed::new(delivery, result);
        // A state that is not recorded exists only in this delivery. Under the state's key, another
        // parked delivery could replace it.
        let processed = match &processed.result {
            AttemptResult::Failed {
                is_recorded: false, ..
            } => processed,
            _ => Processed {
                park_key: park_key.clone(),
                planned_at,
                ..processed
            },
        };
        Processed {
            retry: prepared.provider.retry,
            template_error: rendered.template_error.clone(),
            conflict: conflict.unwrap_or_default(),
            ..processed
        }
    }

    fn channel_not_found(
        &self,
        delivery: &Delivery,
        prepared: &Prepared,
        failure: Failure,
    ) -> Processed {
        Processed {
            retry: prepared.provider.retry,
            ..Processed::new(delivery, AttemptResult::failed(failure))
        }
    }

    fn call<'a>(
        &self,
        delivery: &'a Delivery,
        prepared: &'a Prepared,
        message: &Message<'_>,
        held: &'a HeldMessage,
        park_key: &'a str,
    ) -> Call<'a> {
        let provider = &prepared.provider;
        Call {
            destination: Arc::new(provider.destination(message.channel)),
            provider,
            delivery,
            planned_at: delivery.planned_at,
            slot_ms: delivery.slot_ms,
            park_key,
            spare: held.spare,
            capacity: &held.capacity,
        }
    }

    async fn call_service(
        &self,
        prepared: &Prepared,
        message: &Message<'_>,
        wanted: Option<Wanted>,
        delivery: &Delivery,
        caller: &mut Caller<'_>,
    ) -> StateWrite {
        let without_record = |result| StateWrite {
            result,
            other_cluster: None,
        };
        if let (Notifier::State(notifier), Some(wanted)) = (&prepared.notifier, wanted) {
            let wanted = match wanted {
                Ok(Some(wanted)) => wanted,
                Ok(None) => return without_record(Ended::nothing_to_send().into()),
                Err(failure) => {
                    return without_record(AttemptResult::failed(prepared.redacted(failure)));
                }
            };
            let notifier = notifier.as_ref();
            // Boxed, so that the future of the common path stays small.
            let write = self
                .newest_wins
                .write(notifier, wanted, message, delivery, prepared, caller);
            return Box::pin(write).await;
        }
        if let Err(why) = caller.admit().await {
            return without_record(why.into());
        }
        let result = attempt_once(prepared, message).await;
        caller.record(result.as_ref().err());
        if result.is_ok() {
            failpoint::reach("worker:accepted");
        }
        without_record(result.into())
    }
}

/// What to do if another cluster writes the same commit status. Keys of comments and incidents name
/// the object by its uid, or by its cluster.
fn conflict(provider: &ResolvedProvider, other: &str, event: &Event) -> Option<String> {
    let fix = match (provider.kind.family, &provider.commit_status_expr) {
        (Family::CommitStatus, None) => "set commitStatus.id: qualified",
        (Family::CommitStatus, Some(_)) => {
            "change commitStatusExpr so that its result differs between clusters"
        }
        _ => return None,
    };
    let cluster = &event.cluster;
    let other = cut_chars(other, LONGEST_CLUSTER);
    let cluster = cut_chars(cluster, LONGEST_CLUSTER);
    Some(format!(
        "the clusters {other} and {cluster} write commit statuses with the same id, so that each \
         replaces that of the other; {fix} in Provider {}/{}",
        provider.namespace, provider.name
    ))
}

/// The state that a message asks for, or why there is none.
type Wanted = Result<Option<DesiredState>, Failure>;

/// The state that a message asks for; `None` if the type keeps no states.
async fn wanted(prepared: &Prepared, message: &Message<'_>) -> Option<Wanted> {
    match &prepared.notifier {
        Notifier::State(notifier) => Some(notifier.desire(message).await),
        Notifier::Message(_) => None,
    }
}

/// The name of the record of a state.
fn state_key(wanted: &Wanted) -> Option<String> {
    let desired = wanted.as_ref().ok()?.as_ref()?;
    Some(record_key(&desired.key))
}
