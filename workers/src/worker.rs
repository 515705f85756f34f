//! A worker: pulls deliveries of its pools, attempts each once, and settles.
//!
//! ```text
//!  pull ─► (again? alone) ─► resolve provider ─► read event ─► attempt ─► decide ─► park | bury ─► acknowledge ─► tell
//! ```

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use tidings_core::bus::pull::{Pulled, Puller, Stop};
use tidings_core::bus::{Bus, NotStored};
use tidings_core::health::Health;
use tidings_core::metrics::Metrics;
use tidings_core::{Attempt, Delivery, Event, Failure, Message as _, Outcome, ProviderReference, Reason, failpoint, stream};
use tidings_rules::Unresolved;

use crate::attempt::{Notifiers, Prepared, attempt_once};
use crate::examine::{Examined, Examiner};
use crate::http::Outside;
use crate::keep::{Keeper, Kept, record_key};
use crate::notification::Notification;
use crate::notifier::{Notifier, PROVIDERS};
use crate::providers::Providers;
use crate::report::{Reporter, reference};
use crate::settle::{Settlement, Tried, letter, settle};
use crate::wording::{Wording, Words};

/// Deliveries to a suspended Provider look again this often.
const SUSPENDED_FOR: Duration = Duration::from_secs(60);
/// Pauses between tries to reach the bus with what must be stored.
const BUS_PAUSE: Duration = Duration::from_millis(500);

/// One process's worker.
pub struct Worker {
    bus: Bus,
    providers: Arc<dyn Providers>,
    notifiers: Notifiers,
    keeper: Keeper,
    reporter: Reporter,
    examiner: Examiner,
    words: Words,
}

/// What to do with a message, and what to tell of it.
enum Fate {
    /// Acknowledge it: it was dealt with when it came the first time.
    Known,
    /// Acknowledge it once it is parked, unchanged: nothing was attempted.
    Wait { place: String, wait: Duration, why: &'static str },
    /// Acknowledge it once it is under the subject of its provider's present type.
    Move(&'static str),
    /// An attempt has ended.
    Tried { place: String, tried: Tried, prepared: Option<Arc<Prepared>>, other: Option<String> },
    /// The bus can't be asked: leave it, it comes again.
    Leave(NotStored),
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(
        bus: Bus,
        providers: Arc<dyn Providers>,
        outside: Outside,
        keeper: Keeper,
        examiner: Examiner,
        metrics: Metrics,
        words: Words,
    ) -> Arc<Self> {
        let (notifiers, reporter) = (Notifiers::new(outside), Reporter::new(bus.clone(), metrics));
        Arc::new(Self { bus, providers, notifiers, keeper, reporter, examiner, words })
    }

    /// Works on every type in these pools until `stop`. `capacity` is for each type: a type that is slow holds up no other.
    ///
    /// # Guarantees
    /// At least once: a delivery is acknowledged after its attempt's result is stored. A crash costs at most one duplicate
    /// for each delivery that was in flight.
    pub fn run(
        self: Arc<Self>,
        pools: &[String],
        capacity: usize,
        health: &Health,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        // The empty type is that of deliveries whose Provider did not exist when they were planned.
        let kinds = PROVIDERS.iter().map(|row| row.kind).chain([""]);
        let pulls = kinds.flat_map(|kind| pools.iter().map(move |pool| (pool, kind))).map(|(pool, kind)| {
            let consumer = stream::worker_consumer(pool, kind);
            let name = consumer.durable_name.clone().unwrap_or_default();
            let check = health.check(format!("pull {name}"), Some(Duration::from_secs(30)));
            let puller = Puller { bus: self.bus.clone(), stream: stream::DELIVERIES, consumer, capacity, check };
            let (worker, asked) = (self.clone(), self.clone());
            let handle = move |pulled| {
                let worker = worker.clone();
                async move { worker.handle(pulled).await }
            };
            puller.run(stop.clone(), move || asked.providers.are_loaded(), handle)
        });
        futures::future::join_all(pulls).map(|_| ())
    }

    async fn handle(&self, pulled: Pulled) {
        self.reporter.hold(true);
        self.handle_held(&pulled).await;
        self.reporter.hold(false);
    }

    async fn handle_held(&self, pulled: &Pulled) {
        let Ok(delivery) = Delivery::decode(pulled.message.payload.clone()) else {
            tracing::error!(subject = %pulled.message.subject, "a delivery can't be decoded and is dropped");
            self.reporter.count("", "undecodable");
            return self.acknowledge(pulled).await;
        };
        if pulled.delivered < 2 {
            return self.examiner.beside(self.process_and_settle(delivery, pulled)).await;
        }
        match self.examiner.alone(&delivery.id, pulled.delivered, self.process_and_settle(delivery.clone(), pulled)).await {
            Examined::Ended(()) => {}
            Examined::Guilty => {
                let detail = "one worker after another ended while it attempted this delivery, and nothing else, five times";
                self.bury_at_once(delivery, Reason::Crashed, detail, pulled).await;
            }
            Examined::Unknown(error) => self.settle(delivery, Fate::Leave(error), pulled).await,
        }
    }

    async fn process_and_settle(&self, delivery: Delivery, pulled: &Pulled) {
        let fate = self.process(&delivery, pulled).await;
        self.settle(delivery, fate, pulled).await;
    }

    async fn process(&self, delivery: &Delivery, pulled: &Pulled) -> Fate {
        let started = Timestamp::now();
        let clock = Instant::now();
        let failed = |failure, prepared| Fate::Tried {
            place: delivery.id.clone(),
            tried: Tried { started, took: clock.elapsed(), result: Err(failure), newest: None, template_error: String::new() },
            prepared,
            other: None,
        };
        if pulled.delivered >= 2 {
            match self.bus.is_parked_by(delivery, &delivery.id, pulled.sequence).await {
                Ok(true) => return Fate::Known,
                Ok(false) => {}
                Err(error) => return Fate::Leave(error),
            }
        }
        let prepared = match self.prepare(delivery) {
            Ok(prepared) => prepared,
            Err(Unprepared::Failed(failure)) => return failed(failure, None),
            Err(Unprepared::Suspended) => {
                return Fate::Wait { place: delivery.id.clone(), wait: SUSPENDED_FOR, why: "suspended" };
            }
        };
        if prepared.provider.kind.name != reference(delivery).r#type {
            return Fate::Move(prepared.provider.kind.name);
        }
        let event = match self.event(delivery).await {
            Ok(Some(event)) => event,
            Ok(None) => return failed(Failure::permanent(Reason::EventGone, "its event is no longer stored"), Some(prepared)),
            Err(error) => return Fate::Leave(error),
        };
        self.attempt(delivery, &event, prepared, pulled, (started, clock)).await
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        event: &Event,
        prepared: Arc<Prepared>,
        pulled: &Pulled,
        (started, clock): (Timestamp, Instant),
    ) -> Fate {
        let object = event.involved_object.clone().unwrap_or_default();
        let alert = delivery.alert.clone().unwrap_or_default();
        failpoint::reach_for("worker:calling", &event.message);
        let told = notification(delivery, event, &object, &alert, &prepared);
        let wording = self.words.wording(&told, &prepared.provider, || self.providers.template(delivery));
        let notification = Notification { wording: &wording, ..told };
        let mut place = delivery.id.clone();
        if let Notifier::State(notifier) = &prepared.notifier
            && let Ok(Some(desired)) = notifier.desire(&notification)
        {
            place = record_key(&desired.key);
            if pulled.delivered >= 2 && matches!(self.bus.is_parked_by(delivery, &place, pulled.sequence).await, Ok(true)) {
                return Fate::Known;
            }
        }
        let attempting = AssertUnwindSafe(self.attempt_with_memory(&prepared, &notification, delivery)).catch_unwind();
        let kept = attempting.await.unwrap_or_else(|_| Err(Failure::transient(Reason::Crashed, "the attempt panicked")));
        let (result, other, newest) = match kept {
            Ok(Kept::Wait(wait)) => return Fate::Wait { place, wait, why: "waiting" },
            Ok(Kept::Ended { ended, other }) => (Ok(ended), other, None),
            Ok(Kept::Failed { failure, is_noted: true, planned_at }) => (Err(failure), None, planned_at),
            // Its state is nowhere but in this delivery: at the key's place another could push it out.
            Ok(Kept::Failed { failure, is_noted: false, .. }) | Err(failure) => {
                place.clone_from(&delivery.id);
                (Err(failure), None, None)
            }
        };
        let template_error = wording.template_error.clone();
        let tried = Tried { started, took: clock.elapsed(), result, newest, template_error };
        Fate::Tried { place, tried, prepared: Some(prepared), other }
    }

    async fn attempt_with_memory(
        &self,
        prepared: &Prepared,
        notification: &Notification<'_>,
        delivery: &Delivery,
    ) -> Result<Kept, Failure> {
        let Notifier::State(notifier) = &prepared.notifier else {
            let ended = attempt_once(prepared, notification).await?;
            failpoint::reach("worker:accepted");
            return Ok(Kept::Ended { ended, other: None });
        };
        // Boxed, like all that is rare beside a message: so that the common way stays small.
        let kept = Box::pin(self.keeper.keep(notifier.as_ref(), notification, delivery, prepared.provider.timeout)).await;
        match kept {
            Ok(Kept::Failed { failure, is_noted, planned_at }) => {
                Ok(Kept::Failed { failure: prepared.redacted(failure), is_noted, planned_at })
            }
            Ok(kept) => Ok(kept),
            Err(failure) => Err(prepared.redacted(failure)),
        }
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Arc<Prepared>, Unprepared> {
        let ProviderReference { namespace, name, .. } = reference(delivery);
        let provider = self.providers.resolve(namespace, name).map_err(|unresolved| match unresolved {
            Unresolved::Missing(why) => Unprepared::Failed(Failure::transient(Reason::Missing, why)),
            Unresolved::Invalid(why) => Unprepared::Failed(Failure::permanent(Reason::Misconfigured, why)),
            Unresolved::Suspended(_) => Unprepared::Suspended,
        })?;
        self.notifiers.prepare(provider).map_err(Unprepared::Failed)
    }

    async fn event<'a>(&self, delivery: &'a Delivery) -> Result<Option<Cow<'a, Event>>, NotStored> {
        match &delivery.event {
            Some(event) => Ok(Some(Cow::Borrowed(event))),
            None => Ok(self.bus.event_at(delivery.event_sequence).await?.map(Cow::Owned)),
        }
    }

    async fn settle(&self, mut delivery: Delivery, fate: Fate, pulled: &Pulled) {
        let kind = reference(&delivery).r#type.clone();
        match fate {
            Fate::Known => {
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, "known");
            }
            Fate::Leave(error) => {
                tracing::warn!(delivery.id, %error, "a delivery is left for later");
                self.reporter.count(&kind, "returned");
            }
            Fate::Move(present) => {
                delivery.provider.get_or_insert_default().r#type = present.to_owned();
                Box::pin(until_stored(|| self.bus.requeue(&delivery, pulled.sequence))).await;
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, "moved");
            }
            Fate::Wait { place, wait, why } => {
                let spread = wait + wait.mul_f64(rand::random::<f64>() / 4.0) + Duration::from_millis(50);
                Box::pin(until_stored(|| self.bus.park(&delivery, &place, pulled.sequence, spread))).await;
                self.acknowledge(pulled).await;
                self.reporter.count(&kind, why);
            }
            Fate::Tried { place, tried, prepared, other } => {
                self.settle_tried(delivery, &place, &tried, prepared, other, pulled).await
            }
        }
    }

    async fn settle_tried(
        &self,
        delivery: Delivery,
        place: &str,
        tried: &Tried,
        prepared: Option<Arc<Prepared>>,
        other: Option<String>,
        pulled: &Pulled,
    ) {
        let policy = prepared.map(|prepared| prepared.provider.retry).unwrap_or_default();
        let (settlement, attempt) = settle(&delivery, tried, &policy, Timestamp::now(), rand::random());
        match &settlement {
            Settlement::Done => {}
            Settlement::Park(parked, wait) => {
                Box::pin(until_stored(|| self.bus.park(parked, place, pulled.sequence, *wait))).await;
                failpoint::reach("worker:parked");
            }
            Settlement::Bury(letter) => {
                Box::pin(until_stored(|| self.bus.bury(letter))).await;
                failpoint::reach("worker:buried");
            }
        }
        self.acknowledge(pulled).await;
        self.reporter.report(&delivery, tried, attempt, other).await;
    }

    async fn bury_at_once(&self, delivery: Delivery, reason: Reason, detail: &str, pulled: &Pulled) {
        let letter = letter(delivery.clone(), reason, detail, Timestamp::now());
        until_stored(|| self.bus.bury(&letter)).await;
        self.acknowledge(pulled).await;
        let result = Err(Failure::permanent(reason, detail));
        let (started, took) = (Timestamp::now(), Duration::ZERO);
        let tried = Tried { started, took, result, newest: None, template_error: String::new() };
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
    async fn acknowledge(&self, pulled: &Pulled) {
        for _ in 0..3 {
            match self.bus.settle(&pulled.message).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "an acknowledgement was not confirmed"),
            }
        }
        tracing::warn!(sequence = pulled.sequence, "an acknowledgement was not confirmed: the delivery may come again");
    }
}

enum Unprepared {
    Failed(Failure),
    Suspended,
}

/// What a notifier is told of a delivery, in the standard form.
pub fn notification<'a>(
    delivery: &'a Delivery,
    event: &'a Event,
    object: &'a tidings_core::ObjectReference,
    alert: &'a tidings_core::AlertReference,
    prepared: &'a Prepared,
) -> Notification<'a> {
    let channel = if delivery.channel.is_empty() { &prepared.provider.channel } else { &delivery.channel };
    Notification {
        delivery_id: &delivery.id,
        event,
        object,
        metadata: &delivery.metadata,
        alert,
        channel,
        wording: Wording::STANDARD,
    }
}

/// Tries until it is stored: nothing is acknowledged before. Ends early only with its message being handed back.
async fn until_stored<T, F: Future<Output = Result<T, NotStored>>>(store: impl Fn() -> F) -> T {
    loop {
        match store().await {
            Ok(stored) => return stored,
            Err(error) => tracing::warn!(%error, "what became of a delivery can't be stored yet, trying again"),
        }
        tokio::time::sleep(BUS_PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}
