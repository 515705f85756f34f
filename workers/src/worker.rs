//! A worker: pulls the deliveries of its pools and attempts each once.
//!
//! ```text
//!  pull ─► crash guard ─► resolve provider ─► read event ─► attempt ─► decide ─► apply ─► report
//!                                                              └ can it call now? (throttle)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tidings_core::bus::Bus;
use tidings_core::bus::pull::{PullMemory, Pulled, Puller, Stop};
use tidings_core::bus::streams;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::memory::MemoryPlan;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::{Delivery, ProviderReference, Reason};

use crate::attempt::{PreparedProviders, Refusal};
use crate::http::HttpClients;
use crate::memory::MemoryBudget;
use crate::message::render::Renderer;
use crate::newest_wins::NewestWins;
use crate::notifier::PROVIDERS;
use crate::throttle::Throttle;
use crate::throttle::local_permits::TypeCapacity;
use crate::worker::crash_guard::{CrashGuard, Guarded};
use crate::worker::decide::Processed;
use crate::worker::providers::Providers;
use crate::worker::read::read;
use crate::worker::report::Reporter;

mod apply;
pub mod crash_guard;
pub mod decide;
mod process;
pub mod providers;
mod read;
mod report;
mod trace;
pub mod with_rules;

/// The most bytes of one pull.
const MAX_PULL_BYTES: usize = 1 << 20;
/// How much of its message's size a delivery needs until it is attempted or parked: the message,
/// the delivery, a copy for the next attempt.
const COPIES: usize = 3;

/// The worker of one process.
pub struct Worker {
    bus: Bus,
    providers: Arc<dyn Providers>,
    prepared: PreparedProviders,
    newest_wins: NewestWins,
    throttle: Throttle,
    reporter: Reporter,
    crash_guard: CrashGuard,
    renderer: Renderer,
    memory: Arc<MemoryBudget>,
    pulled: PullMemory,
}

/// A message in memory, and the capacity for its type.
struct HeldMessage {
    pulled: Pulled,
    /// How many more messages of the type this worker could take.
    spare: usize,
    capacity: TypeCapacity,
}

impl HeldMessage {
    fn is_redelivered(&self) -> bool {
        self.pulled.delivered >= 2
    }
}

// === impl Worker ===

impl Worker {
    /// A worker that does not run yet.
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
        memory: MemoryPlan,
    ) -> Arc<Self> {
        let most = usize::try_from(memory.deliveries).unwrap_or(usize::MAX);
        Arc::new(Self {
            prepared: PreparedProviders::new(http_clients),
            memory: MemoryBudget::new(most, metrics.worker_memory_bytes.clone()),
            pulled: PullMemory::new(memory.pulled, COPIES),
            reporter: Reporter::new(bus.clone(), metrics),
            bus,
            providers,
            newest_wins,
            throttle,
            crash_guard,
            renderer,
        })
    }

    /// Processes the deliveries of all types in these pools until `stop`. Each type has its own
    /// `capacity`, so that a slow type does not delay others.
    ///
    /// # Guarantees
    /// At least once: a delivery is acknowledged after the result of its attempt is stored. A crash
    /// costs at most one duplicate for each delivery that was in flight.
    pub fn run(
        self: Arc<Self>,
        pools: &[String],
        capacity: usize,
        health: &Health,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        // The empty type is for deliveries whose Provider did not exist when they were planned.
        let kinds = PROVIDERS.iter().map(|row| row.kind).chain([""]);
        let pulls = kinds
            .flat_map(|kind| pools.iter().map(move |pool| (pool, kind)))
            .map(|(pool, kind)| {
                self.clone()
                    .pull(pool, kind, capacity, health, stop.clone())
            });
        let pulls = futures::future::join_all(pulls.collect::<Vec<_>>());
        let (worker, holding) = (self, stop.holding);
        let following = tokio::spawn(async move { worker.throttle.follow(holding).await });
        pulls.map(move |_| following.abort())
    }

    /// Processes the deliveries of one type in one pool.
    fn pull(
        self: Arc<Self>,
        pool: &str,
        kind: &str,
        capacity: usize,
        health: &Health,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        let consumer = streams::worker_consumer(pool, kind);
        let name = consumer.durable_name.clone().unwrap_or_default();
        let puller = Puller {
            bus: self.bus.clone(),
            stream: streams::DELIVERIES,
            consumer,
            capacity,
            bytes: MAX_PULL_BYTES,
            memory: self.pulled.clone(),
            check: health.check(format!("pull {name}"), Some(Duration::from_secs(30))),
            restores: true,
        };
        let (providers, memory) = (self.providers.clone(), self.memory.clone());
        let may_pull = move || providers.are_loaded() && memory.has_room();
        let held = Arc::<AtomicUsize>::default();
        let type_capacity = TypeCapacity::new(capacity);
        let handle = move |pulled| {
            let (worker, held, type_capacity) = (self.clone(), held.clone(), type_capacity.clone());
            async move {
                let _counted = HeldCount::add(&held);
                let spare = capacity.saturating_sub(held.load(Ordering::Relaxed));
                worker
                    .handle(HeldMessage {
                        pulled,
                        spare,
                        capacity: type_capacity,
                    })
                    .await;
            }
        };
        puller.run(stop, may_pull, handle)
    }

    async fn handle(&self, held: HeldMessage) {
        let _holding = self.reporter.hold();
        let pulled = &held.pulled;
        let Some(delivery) = read(pulled.message.payload.clone()) else {
            tracing::error!(
                code = codes::DELIVERY_UNDECODABLE,
                subject = %pulled.message.subject,
                "delivery cannot be decoded and is dropped"
            );
            let unknown = ProviderReference::default();
            self.reporter.count(&unknown, NotAttempted::Undecodable);
            return self.acknowledge(pulled).await;
        };
        let work = self.attempt_and_finish(&delivery, &held);
        if !held.is_redelivered() {
            return self.crash_guard.beside_others(work).await;
        }
        let why = match self
            .crash_guard
            .alone(&delivery.id, pulled.delivered, work)
            .await
        {
            Guarded::Ended(()) => return,
            Guarded::BusUnavailable(error) => Refusal::BusUnavailable(error),
            Guarded::Poison => {
                let detail = "five workers died, each while it attempted this delivery alone";
                Refusal::GiveUp(Reason::Crashed, detail.to_owned())
            }
        };
        self.finish(&delivery, Processed::new(&delivery, why), pulled)
            .await;
    }

    async fn attempt_and_finish(&self, delivery: &Delivery, held: &HeldMessage) {
        let processed = self.process(delivery, held).await;
        self.finish(delivery, processed, &held.pulled).await;
    }
}

/// Counts a held message, until it is dropped.
struct HeldCount(Arc<AtomicUsize>);

impl HeldCount {
    fn add(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(held.clone())
    }
}

impl Drop for HeldCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
