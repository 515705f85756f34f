//! The router's work on an event: plan, store the deliveries that it causes, acknowledge.

mod pulling;
pub(crate) mod trace;
mod unrouted;

use std::sync::Arc;

use async_nats::jetstream::AckKind;
use parking_lot::Mutex;
use tidings_core::bus::Bus;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::bus::publish::until_stored;
use tidings_core::bus::pull::Pulled;
use tidings_core::model::stored_event;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::{RoutingOutcome, TypeLabel};
use tidings_core::runtime::traces::carrying;
use tidings_core::{Delivery, Event};
use tidings_rules::Rules;
use tidings_rules::live::LiveRules;

use crate::ahead::Ahead;
use crate::cluster_match::is_of_member;
use crate::costly_patterns::CostlyPatterns;
use crate::plan::{DeliveryPlan, PlanContext};
use crate::planner::Planner;
use crate::shadow::Foresee;

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
        let mut span = trace::start(&event, message.headers.as_ref());
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
        let received = event.received_at.map_or(0, |received| received.seconds);
        self.metrics.note_last_event(&event.cluster, received);
        for verdict in &plan.verdicts {
            self.metrics
                .router_verdicts_total
                .get_or_create(verdict)
                .inc();
        }
        let storing = self.store(&plan.deliveries, &event, &rules);
        let stored = carrying(span.context(), storing).await;
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
        let outcome = match plan.deliveries.is_empty() {
            true => RoutingOutcome::Unmatched,
            false => stored,
        };
        trace::describe(&mut span, plan.deliveries.len(), outcome);
        self.finish(&pulled, outcome).await;
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
}
