//! The router's loops: one pulls all events in order, and one pulls those of other clusters ahead
//! of a backlog.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use tidings_core::bus::ahead::AheadConsumer;
use tidings_core::bus::pull::{PullMemory, Puller, Stop};
use tidings_core::bus::streams;
use tidings_core::runtime::health::{Check, Health};
use tokio_util::sync::CancellationToken;

use super::Router;

/// The most bytes of one pull.
const MAX_PULL_BYTES: usize = 4 << 20;
/// The part of the memory for events that are routed ahead of a backlog, as a divisor.
const AHEAD_MEMORY: u64 = 4;
/// How much of its message's size an event needs: the message, the event, and its deliveries, which
/// carry small events.
const COPIES: usize = 4;
/// What rendering one delivery needs in addition, in shadow mode.
const COPIES_TO_RENDER: usize = 4;

impl Router {
    /// Routes until `stop`, with this much `memory` for events. Pulls no events before the first
    /// rules are complete and the clusters of the fleet are read, and none while the storage is
    /// nearly full.
    ///
    /// # Guarantees
    /// At least once: an event is acknowledged after all its deliveries are stored. A redelivered
    /// event gives the same delivery ids, which the bus deduplicates for two minutes.
    pub fn run(
        self: Arc<Self>,
        memory: u64,
        health: &Health,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        let check = health.check("pull router", Some(Duration::from_secs(30)));
        let ahead_memory = memory / AHEAD_MEMORY;
        let puller = self.puller(streams::router_consumer(), memory - ahead_memory, check);
        let first = puller.run(stop.clone(), self.may_pull(), {
            let router = self.clone();
            move |pulled| {
                let router = router.clone();
                async move { router.handle_in_order(pulled).await }
            }
        });
        async move {
            let learned = stop.pulling.run_until_cancelled(self.ahead.learn());
            learned.await;
            let second = self.ahead.run(
                |consumer, end| self.pull_ahead(&consumer, ahead_memory, &stop, end),
                stop.pulling.clone(),
            );
            tokio::join!(first, second);
        }
    }

    fn puller(&self, consumer: pull::Config, memory: u64, check: Check) -> Puller {
        let copies = match &self.shadow {
            None => COPIES,
            Some(_) => COPIES + COPIES_TO_RENDER,
        };
        Puller {
            bus: self.bus.clone(),
            stream: streams::EVENTS,
            restores: consumer.durable_name.as_deref() == Some(streams::ROUTER),
            consumer,
            capacity: self.concurrency,
            bytes: MAX_PULL_BYTES,
            memory: PullMemory::new(memory, copies),
            check,
        }
    }

    fn may_pull(self: &Arc<Self>) -> impl Fn() -> bool + Send + use<> {
        let router = self.clone();
        move || router.is_loaded() && router.bus.storage().has_room_for_deliveries()
    }

    /// Routes the events of the second consumer until `stop` or `end`.
    fn pull_ahead(
        self: &Arc<Self>,
        consumer: &AheadConsumer,
        memory: u64,
        stop: &Stop,
        end: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        // This consumer is not needed, so it does not decide whether the router is ready.
        let check = Health::default().check("pull router-ahead", None);
        let puller = self.puller(consumer.puller_config(), memory, check);
        let pulling = stop.pulling.child_token();
        let until_end = pulling.clone();
        let stop = Stop {
            pulling,
            holding: stop.holding.clone(),
        };
        let router = self.clone();
        let pulled = puller.run(stop, self.may_pull(), move |pulled| {
            let router = router.clone();
            async move { router.handle(pulled).await }
        });
        async move {
            let ended = async {
                until_end.run_until_cancelled(end.cancelled()).await;
                until_end.cancel();
            };
            tokio::join!(pulled, ended);
        }
    }
}
