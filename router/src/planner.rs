//! Plans events on the right thread, and in turns.
//!
//! Most plans take less than a millisecond, and run at once. A plan whose patterns take more steps
//! runs on a thread for blocking work, so that the runtime answers others meanwhile. Only one such
//! plan of a namespace runs at a time, and all together leave a core free. If many of a namespace
//! wait, further ones are returned to the server: they would take the permits with which the router
//! pulls the events of others. The server limits how many may be returned, so an event that was
//! returned several times is planned with fewer steps.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::Mutex;
use tidings_core::Event;
use tidings_core::bus::clusters::Clusters;
use tidings_rules::Rules;
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::matching::object;
use crate::pattern_searches::PatternSearches;
use crate::plan::{DeliveryPlan, PlanContext, plan_with};

/// The steps of a plan that runs at once: a few milliseconds.
const STEPS_AT_ONCE: u64 = 500_000;

/// An event that was delivered more often is planned with [`STEPS_AT_ONCE`] for each namespace.
const MOST_DELIVERIES: i64 = 8;

/// Plans events.
pub(crate) struct Planner {
    /// The plans of a namespace that take longer.
    namespaces: Mutex<HashMap<String, Arc<Namespace>>>,
    waiting: Semaphore,
    threads: Semaphore,
    /// How many plans of a namespace may wait.
    waiting_each: usize,
}

struct Namespace {
    waiting: Semaphore,
    turn: Turn<()>,
}

impl Planner {
    /// `concurrency` is the number of events that the router handles at a time.
    pub(crate) fn new(concurrency: usize) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            namespaces: Mutex::default(),
            waiting: Semaphore::new((concurrency / 2).max(1)),
            threads: Semaphore::new(cores.saturating_sub(1).max(1)),
            waiting_each: (concurrency / 8).max(1),
        }
    }

    /// Plans the deliveries of an event, which the server delivered this number of times. `None` if
    /// too many plans wait already.
    pub(crate) async fn plan(
        &self,
        rules: Arc<Rules>,
        event: &Arc<Event>,
        clusters: &Arc<Clusters>,
        context: PlanContext,
        delivered: i64,
    ) -> Option<DeliveryPlan> {
        if delivered > MOST_DELIVERIES {
            return self.plan_shortly(rules, event, clusters, context).await;
        }
        // An event that was returned takes more steps, and costs nothing until it has its turn.
        let at_once = PatternSearches::for_now(STEPS_AT_ONCE);
        if delivered <= 1
            && let Some(plan) = plan_with(&rules, event, clusters, context, at_once)
        {
            return Some(plan);
        }
        let name = object(event).namespace.clone();
        let namespace = self.namespace(&name);
        let plan = self
            .plan_in_turn(&namespace, rules, event, clusters, context)
            .await;
        drop(namespace);
        self.namespaces
            .lock()
            .retain(|other, namespace| *other != name || Arc::strong_count(namespace) > 1);
        plan
    }

    fn namespace(&self, name: &str) -> Arc<Namespace> {
        let mut namespaces = self.namespaces.lock();
        let namespace = || {
            Arc::new(Namespace {
                waiting: Semaphore::new(self.waiting_each),
                turn: Turn::default(),
            })
        };
        let known = namespaces.entry(name.to_owned()).or_insert_with(namespace);
        known.clone()
    }

    async fn plan_in_turn(
        &self,
        namespace: &Namespace,
        rules: Arc<Rules>,
        event: &Arc<Event>,
        clusters: &Arc<Clusters>,
        context: PlanContext,
    ) -> Option<DeliveryPlan> {
        let (Ok(_waits), Ok(_waits_here)) =
            (self.waiting.try_acquire(), namespace.waiting.try_acquire())
        else {
            return None;
        };
        let _turn = namespace.turn.lock().await;
        self.on_thread(rules, event, clusters, context, PatternSearches::default())
            .await
    }

    /// Plans with few steps and without a turn.
    async fn plan_shortly(
        &self,
        rules: Arc<Rules>,
        event: &Arc<Event>,
        clusters: &Arc<Clusters>,
        context: PlanContext,
    ) -> Option<DeliveryPlan> {
        let searches = PatternSearches::short(STEPS_AT_ONCE);
        self.on_thread(rules, event, clusters, context, searches)
            .await
    }

    async fn on_thread(
        &self,
        rules: Arc<Rules>,
        event: &Arc<Event>,
        clusters: &Arc<Clusters>,
        context: PlanContext,
        searches: PatternSearches,
    ) -> Option<DeliveryPlan> {
        let _thread = self.threads.acquire().await.ok()?;
        let (event, clusters) = (event.clone(), clusters.clone());
        let plan = move || plan_with(&rules, &event, &clusters, context, searches);
        match tokio::task::spawn_blocking(plan).await {
            Ok(plan) => plan,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime stops.
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_core::ObjectReference;
    use tidings_rules::Options;
    use tidings_rules::testing::{alert, disorder};

    use super::*;
    use crate::Verdict;

    fn costly_event(namespace: &str) -> Arc<Event> {
        Arc::new(Event {
            severity: "info".into(),
            message: disorder(1, 100_000),
            involved_object: Some(ObjectReference {
                kind: "Kustomization".into(),
                namespace: namespace.into(),
                name: "x".into(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        })
    }

    fn rules() -> Arc<Rules> {
        let list = json!(["[ab]*a[ab]{900}c0", "[ab]*a[ab]{900}c1"]);
        let alerts = ["a", "b"].map(|namespace| {
            let alert = alert("costly", "p").in_namespace(namespace);
            alert.with("inclusionList", list.clone()).object()
        });
        Arc::new(Rules::compile(&alerts, &[], &Options::default()))
    }

    #[tokio::test]
    async fn a_costly_plan_leaves_the_runtime_free() {
        let clusters = Arc::default();
        let (planner, event) = (Planner::new(8), costly_event("a"));
        let mut plan =
            std::pin::pin!(planner.plan(rules(), &event, &clusters, PlanContext::default(), 1));
        // The only thread of this runtime is not blocked by the plan.
        tokio::select! {
            biased;
            _ = &mut plan => panic!("the plan ends after others had their turn"),
            () = tokio::task::yield_now() => {}
        }
        let verdicts = plan.await.unwrap().verdicts;
        assert_eq!(verdicts, [Verdict::PatternTooCostly]);
        assert!(planner.namespaces.lock().is_empty());
    }

    #[tokio::test]
    async fn a_namespace_with_many_costly_events_does_not_hold_up_others() {
        let (planner, rules) = (Planner::new(16), rules());
        let plan = |namespace: &'static str| {
            let (planner, rules) = (&planner, rules.clone());
            let clusters = Arc::default();
            async move {
                let event = costly_event(namespace);
                planner
                    .plan(rules, &event, &clusters, PlanContext::default(), 1)
                    .await
                    .is_some()
            }
        };
        let attack = futures::future::join_all((0..5).map(|_| plan("a")));
        let (attack, neighbor) = tokio::join!(attack, plan("b"));
        assert_eq!(attack, [true, true, false, false, false]);
        assert!(neighbor);
        assert!(plan("a").await, "later events are planned again");
    }

    #[tokio::test]
    async fn an_event_that_was_returned_often_is_planned_while_others_have_their_turn() {
        let clusters = Arc::default();
        let (planner, event) = (Planner::new(8), costly_event("a"));
        let namespace = planner.namespace("a");
        let _turn = namespace.turn.lock().await;
        let plan = planner.plan(
            rules(),
            &event,
            &clusters,
            PlanContext::default(),
            MOST_DELIVERIES + 1,
        );
        assert_eq!(plan.await.unwrap().verdicts, [Verdict::PatternTooCostly]);
    }
}
