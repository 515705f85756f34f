//! A worker: pulls deliveries of its pools, attempts each once, and settles.
//!
//! ```text
//!  pull ─► (again? alone) ─► resolve provider ─► read event ─► attempt ─► decide ─► park | bury ─► acknowledge ─► tell
//!                                                                 └ may it call now? (throttle)
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use futures::FutureExt;
use tidings_core::bus::Bus;
use tidings_core::bus::pull::{Pulled, Puller, Stop};
use tidings_core::bus::streams;
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::{Delivery, Event, Message as _, Reason};

use crate::attempt::{Notifiers, Prepared};
use crate::http::HttpClients;
use crate::message::Message;
use crate::message::render::{RenderedMessage, Renderer};
use crate::newest_wins::NewestWins;
use crate::notifier::PROVIDERS;
use crate::throttle::Throttle;
use crate::throttle::local_permits::Room;
use crate::worker::crash_guard::{CrashGuard, Guarded};
use crate::worker::providers::Providers;
use crate::worker::report::Reporter;

mod apply;
pub mod crash_guard;
pub mod decide;
mod process;
pub mod providers;
pub mod report;

use process::Fate;

/// One process's worker.
pub struct Worker {
    bus: Bus,
    providers: Arc<dyn Providers>,
    notifiers: Notifiers,
    newest_wins: NewestWins,
    throttle: Throttle,
    reporter: Reporter,
    crash_guard: CrashGuard,
    renderer: Renderer,
}

/// A message, how many more of its kind this worker could take, and the room for their calls.
struct Held {
    pulled: Pulled,
    spare: usize,
    room: Room,
}

impl Worker {
    /// A worker that has not begun.
    #[expect(clippy::too_many_arguments, reason = "one caller; they are its parts")]
    pub fn new(
        bus: Bus,
        providers: Arc<dyn Providers>,
        http_clients: HttpClients,
        newest_wins: NewestWins,
        crash_guard: CrashGuard,
        throttle: Throttle,
        metrics: Metrics,
        renderer: Renderer,
    ) -> Arc<Self> {
        let (notifiers, reporter) = (
            Notifiers::new(http_clients),
            Reporter::new(bus.clone(), metrics),
        );
        Arc::new(Self {
            bus,
            providers,
            notifiers,
            newest_wins,
            throttle,
            reporter,
            crash_guard,
            renderer,
        })
    }

    /// Works on every type in these pools until `stop`. `capacity` is for each type: a type that is
    /// slow holds up no other.
    ///
    /// # Guarantees
    /// At least once: a delivery is acknowledged after its attempt's result is stored. A crash
    /// costs at most one duplicate for each delivery that was in flight.
    pub fn run(
        self: Arc<Self>,
        pools: &[String],
        capacity: usize,
        health: &Health,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        // The empty type is that of deliveries whose Provider did not exist when they were planned.
        let kinds = PROVIDERS.iter().map(|row| row.kind).chain([""]);
        let pulls = kinds
            .flat_map(|kind| pools.iter().map(move |pool| (pool, kind)))
            .map(|(pool, kind)| {
                let consumer = streams::worker_consumer(pool, kind);
                let name = consumer.durable_name.clone().unwrap_or_default();
                let check = health.check(format!("pull {name}"), Some(Duration::from_secs(30)));
                let puller = Puller {
                    bus: self.bus.clone(),
                    stream: streams::DELIVERIES,
                    consumer,
                    capacity,
                    check,
                };
                let (worker, asked, held) =
                    (self.clone(), self.clone(), Arc::<AtomicUsize>::default());
                let room = Room::of(capacity);
                let handle = move |pulled| {
                    let (worker, held, room) = (worker.clone(), held.clone(), room.clone());
                    async move {
                        let _one = One::of(&held);
                        let spare = capacity.saturating_sub(held.load(Ordering::Relaxed));
                        worker
                            .handle(&Held {
                                pulled,
                                spare,
                                room,
                            })
                            .await;
                    }
                };
                puller.run(stop.clone(), move || asked.providers.are_loaded(), handle)
            });
        let (follower, holding) = (self.clone(), stop.holding.clone());
        let following = tokio::spawn(async move { follower.throttle.follow(holding).await });
        futures::future::join_all(pulls).map(move |_| following.abort())
    }

    async fn handle(&self, held: &Held) {
        let _holding = self.reporter.hold();
        let pulled = &held.pulled;
        let Ok(delivery) = Delivery::decode(pulled.message.payload.clone()) else {
            tracing::error!(code = codes::DELIVERY_UNDECODABLE, subject = %pulled.message.subject, "delivery cannot be decoded and is dropped");
            self.reporter.count("", NotAttempted::Undecodable);
            return self.acknowledge(pulled).await;
        };
        if pulled.delivered < 2 {
            return self
                .crash_guard
                .beside(self.process_and_settle(delivery, held))
                .await;
        }
        match self
            .crash_guard
            .alone(
                &delivery.id,
                pulled.delivered,
                self.process_and_settle(delivery.clone(), held),
            )
            .await
        {
            Guarded::Ended(()) => {}
            Guarded::Poison => {
                let detail = "one worker after another ended while it attempted this delivery, and nothing else, five times";
                self.bury_at_once(delivery, Reason::Crashed, detail, pulled)
                    .await;
            }
            Guarded::Unknown(error) => {
                self.settle(
                    delivery,
                    Fate::Leave(error),
                    &RetryPolicy::default(),
                    pulled,
                )
                .await
            }
        }
    }

    async fn process_and_settle(&self, delivery: Delivery, held: &Held) {
        let mut retry = RetryPolicy::default();
        // A panic costs this attempt, whatever it was about. What the attempt had taken is given
        // back as it is dropped.
        let processing = AssertUnwindSafe(self.process(&delivery, held, &mut retry)).catch_unwind();
        let fate = processing
            .await
            .unwrap_or_else(|_| Fate::crashed(&delivery));
        self.settle(delivery, fate, &retry, &held.pulled).await;
    }
}

/// One of those that are held, until it is dropped.
struct One(Arc<AtomicUsize>);

impl One {
    fn of(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(held.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a notifier is told of a delivery, in the standard form.
pub fn notification<'a>(
    delivery: &'a Delivery,
    event: &'a Event,
    object: &'a tidings_core::ObjectReference,
    alert: &'a tidings_core::AlertReference,
    prepared: &'a Prepared,
) -> Message<'a> {
    let channel = if delivery.channel.is_empty() {
        &prepared.provider.channel
    } else {
        &delivery.channel
    };
    Message {
        delivery_id: &delivery.id,
        event,
        object,
        metadata: &delivery.metadata,
        alert,
        channel,
        rendered: RenderedMessage::STANDARD,
    }
}
