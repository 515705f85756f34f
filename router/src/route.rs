//! The router's loop: pulls events and stores the deliveries that they cause.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use parking_lot::Mutex;
use tidings_core::bus::Bus;
use tidings_core::bus::ahead::AheadConsumer;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::bus::publish::until_stored;
use tidings_core::bus::pull::{PullMemory, Pulled, Puller, Stop};
use tidings_core::bus::streams;
use tidings_core::model::stored_event::{self, RefusedEvent};
use tidings_core::model::time::to_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tidings_core::runtime::health::{Check, Health};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::{RoutingOutcome, TypeLabel};
use tidings_core::wire::PostponedEvent;
use tidings_core::{Delivery, Event};
use tidings_rules::Rules;
use tidings_rules::live::LiveRules;
use tokio_util::sync::CancellationToken;

use crate::ahead::Ahead;
use crate::cluster_match::is_of_member;
use crate::costly_patterns::CostlyPatterns;
use crate::plan::{DeliveryPlan, PlanContext};
use crate::planner::Planner;
use crate::shadow::Foresee;

/// The most bytes of one pull.
const MAX_PULL_BYTES: usize = 4 << 20;
/// The part of the memory for events that are routed ahead of a backlog, as a divisor.
const AHEAD_MEMORY: u64 = 4;
/// How much of its message's size an event needs: the message, the event, and its deliveries, which
/// carry small events.
const COPIES: usize = 4;
/// What rendering one delivery needs in addition, in shadow mode.
const COPIES_TO_RENDER: usize = 4;

/// Routes events: plans the deliveries of each event and stores them.
pub struct Router {
    bus: Bus,
    rules: Arc<LiveRules>,
    metrics: Metrics,
    costly: Arc<CostlyPatterns>,
    clusters: Arc<LiveClusters>,
    planner: Planner,
    /// Where events are noted whose member's rules are not read.
    postponed: PostponedEvents,
    concurrency: usize,
    ahead: Ahead,
    /// Records deliveries instead of storing them, in shadow mode.
    shadow: Option<Arc<dyn Foresee>>,
    /// The consumer sequence of the last message that was not redelivered, and its stream sequence
    /// minus that.
    gap: Mutex<Option<(u64, u64)>>,
}

/// How a router works.
pub struct RouterOptions {
    /// The most events that are handled at a time.
    pub concurrency: usize,
    /// The name of the cluster that the router runs in.
    pub own_cluster: String,
    /// Where events are noted whose member's rules are not read.
    pub postponed: PostponedEvents,
    /// Records deliveries instead of storing them, in shadow mode.
    pub shadow: Option<Arc<dyn Foresee>>,
}

impl Router {
    /// Creates a router. [`Router::run`] starts it.
    pub fn new(
        bus: Bus,
        rules: Arc<LiveRules>,
        metrics: Metrics,
        costly: Arc<CostlyPatterns>,
        clusters: Arc<LiveClusters>,
        options: RouterOptions,
    ) -> Arc<Self> {
        let RouterOptions {
            concurrency,
            own_cluster,
            postponed,
            shadow,
        } = options;
        let ahead = Ahead::new(bus.clone(), clusters.clone(), own_cluster);
        Arc::new(Self {
            ahead,
            bus,
            rules,
            metrics,
            costly,
            clusters,
            planner: Planner::new(concurrency),
            postponed,
            concurrency,
            shadow,
            gap: Mutex::default(),
        })
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

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

    /// Whether rules and clusters were read. An event that is routed earlier would match too little
    /// or too much.
    pub(crate) fn is_loaded(&self) -> bool {
        self.rules.loaded() && self.clusters.loaded()
    }

    pub(crate) fn clusters(&self) -> &LiveClusters {
        &self.clusters
    }

    pub(crate) fn rules(&self) -> &LiveRules {
        &self.rules
    }

    /// Routes an event of the first consumer, unless it was routed ahead of others.
    async fn handle_in_order(&self, pulled: Pulled) {
        self.detect_eviction(&pulled);
        self.ahead.observe(&pulled);
        if self.ahead.has_routed(&pulled).await {
            let reply = pulled.message.reply.as_ref();
            return self.bus.send_ack(reply, AckKind::Ack).await;
        }
        self.handle(pulled).await;
    }

    async fn handle(&self, pulled: Pulled) {
        let message = &pulled.message;
        let event = match stored_event::read(&message.subject, &message.payload) {
            Ok(event) => event,
            Err(refused) => return self.refuse(&pulled, &refused).await,
        };
        let context = PlanContext {
            event_sequence: pulled.sequence,
            planned_at: to_proto(jiff::Timestamp::now()),
            generation: 0,
        };
        let (rules, event) = (self.rules.current(), Arc::new(event));
        let clusters = self.clusters.current();
        let (planner, delivered) = (&self.planner, pulled.delivered);
        let plan = planner.plan(rules.clone(), &event, &clusters, context, delivered);
        let Some(plan) = plan.await else {
            return self.return_later(&pulled).await;
        };
        self.note_left_out(&plan, &event, &rules);
        for verdict in &plan.verdicts {
            self.metrics
                .router_verdicts_total
                .get_or_create(verdict)
                .inc();
        }
        let stored = self.store(&plan.deliveries, &event, &rules).await;
        // A member may be a source under a former or later name of the event's cluster.
        let unread = rules.unread();
        for source in unread.filter(|source| is_of_member(&clusters, source, &event.cluster)) {
            self.postpone(source, &event, pulled.sequence).await;
        }
        tracing::debug!(
            code = codes::EVENT_ROUTED,
            event.id,
            deliveries = plan.deliveries.len(),
            "event routed"
        );
        self.finish(
            &pulled,
            if plan.deliveries.is_empty() {
                RoutingOutcome::Unmatched
            } else {
                stored
            },
        )
        .await;
        failpoint::reach("router:acknowledged");
    }

    /// Plans an event that was postponed, in turn with other events. `None` if too many wait.
    pub(crate) async fn plan_postponed(
        &self,
        event: &Arc<Event>,
        sequence: u64,
        rules: &Arc<Rules>,
    ) -> Option<DeliveryPlan> {
        let context = PlanContext {
            event_sequence: sequence,
            planned_at: to_proto(jiff::Timestamp::now()),
            generation: 0,
        };
        let (planner, clusters) = (&self.planner, self.clusters.current());
        let plan = planner.plan(rules.clone(), event, &clusters, context, 1);
        let plan = plan.await?;
        self.note_left_out(&plan, event, rules);
        Some(plan)
    }

    fn note_left_out(&self, plan: &DeliveryPlan, event: &Event, rules: &Rules) {
        for left_out in &plan.left_out {
            self.costly.record(rules, left_out, event.message.len());
        }
    }

    /// Stores deliveries for workers, or only records them in shadow mode.
    pub(crate) async fn store(
        &self,
        deliveries: &[Delivery],
        event: &Event,
        rules: &Rules,
    ) -> RoutingOutcome {
        if let Some(shadow) = &self.shadow {
            self.record_all(shadow.as_ref(), deliveries, event, rules)
                .await;
            return RoutingOutcome::Recorded;
        }
        failpoint::reach("router:enqueueing");
        let enqueued = deliveries.iter().map(|delivery| self.enqueue(delivery));
        futures::future::join_all(enqueued).await;
        failpoint::reach("router:enqueued");
        RoutingOutcome::Planned
    }

    /// Acknowledges a message that is not an event of its subject's cluster.
    async fn refuse(&self, pulled: &Pulled, refused: &RefusedEvent) {
        let sequence = pulled.sequence;
        let outcome = match refused {
            RefusedEvent::Undecodable { subject } => {
                tracing::error!(
                    code = codes::EVENT_UNDECODABLE,
                    subject,
                    sequence,
                    "event cannot be decoded and is dropped"
                );
                RoutingOutcome::Undecodable
            }
            RefusedEvent::OtherCluster {
                subject,
                token,
                claimed,
            } => {
                tracing::error!(
                    code = codes::EVENT_OF_OTHER_CLUSTER,
                    subject,
                    token,
                    claimed,
                    sequence,
                    "event names another cluster than its subject and is refused"
                );
                RoutingOutcome::OtherCluster
            }
        };
        self.finish(pulled, outcome).await;
    }

    /// Returns an event to the server, which delivers it again after a while.
    async fn return_later(&self, pulled: &Pulled) {
        let times = u32::try_from(pulled.delivered.clamp(1, 5)).unwrap_or(1);
        let pause = Duration::from_secs(1 << (times - 1));
        tracing::debug!(
            code = codes::EVENT_RETURNED,
            sequence = pulled.sequence,
            "event returned to the server, too many costly events of its namespace wait"
        );
        self.metrics.router_events_returned_total.inc();
        let kind = AckKind::Nak(Some(pause));
        self.bus.send_ack(pulled.message.reply.as_ref(), kind).await;
    }

    /// Notes that an event must be matched again with the rules of `source`, retrying until it
    /// succeeds.
    async fn postpone(&self, source: &str, event: &Event, sequence: u64) {
        let noted = PostponedEvent {
            cluster: source.to_owned(),
            sequence,
            event_id: event.id.clone(),
        };
        until_stored(
            || self.postponed.add(&noted),
            |error| {
                tracing::warn!(
                    code = codes::EVENT_NOT_POSTPONED,
                    event.id,
                    %error,
                    "event not noted for the rules of its member, retrying"
                )
            },
        )
        .await;
        self.metrics.router_events_postponed_total.inc();
    }

    /// Stores a delivery, retrying until it succeeds. Until then the event is not acknowledged.
    pub(crate) async fn enqueue(&self, delivery: &Delivery) {
        until_stored(
            || self.bus.enqueue(delivery),
            |error| {
                tracing::warn!(
                    code = codes::DELIVERY_NOT_STORED,
                    delivery.id,
                    %error,
                    "delivery not stored, retrying"
                )
            },
        )
        .await;
        let kind = delivery
            .provider
            .as_ref()
            .map(|provider| provider.r#type.clone())
            .unwrap_or_default();
        self.metrics
            .router_deliveries_total
            .get_or_create(&TypeLabel { r#type: kind })
            .inc();
    }

    async fn finish(&self, pulled: &Pulled, outcome: RoutingOutcome) {
        self.bus
            .send_ack(pulled.message.reply.as_ref(), AckKind::Ack)
            .await;
        self.metrics
            .router_events_total
            .get_or_create(&outcome)
            .inc();
    }

    /// Detects that EVENTS evicted unread events, which the server does not report: stream
    /// sequences then grow faster than consumer sequences.
    fn detect_eviction(&self, pulled: &Pulled) {
        if pulled.delivered > 1 {
            return;
        }
        let position = pulled.consumer_sequence;
        let gap = pulled.sequence.saturating_sub(position);
        let before = {
            let mut last = self.gap.lock();
            // Messages are handled at the same time, so a later one may have been here first.
            if last.is_some_and(|(later, _)| later > position) {
                return;
            }
            last.replace((position, gap))
        };
        if let Some((_, before)) = before
            && gap > before
        {
            let lost = gap - before;
            self.metrics.router_lost_to_retention_total.inc_by(lost);
            tracing::error!(
                code = codes::EVENTS_LOST,
                lost,
                sequence = pulled.sequence,
                "stream EVENTS evicted events before a router read them"
            );
        }
    }
}
