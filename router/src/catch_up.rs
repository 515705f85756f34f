//! Matches events again that were routed without the rules of their member, once these are read.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::bus::BusError;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::model::origin;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::wire::PostponedEvent;
use tidings_core::{Delivery, Event};
use tidings_rules::Rules;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::plan::{PlanContext, plan};
use crate::route::Router;

/// How often it is looked for events that another router postponed.
const INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Catches up with postponed events of some members.
pub struct CatchUp {
    /// Stores the deliveries.
    pub router: Arc<Router>,
    /// The events that wait.
    pub postponed: PostponedEvents,
    /// The members whose rules the router reads.
    pub members: Vec<Arc<str>>,
}

impl CatchUp {
    /// Catches up until `stop`: when the rules of a member are read, and every minute.
    ///
    /// # Guarantees
    /// At least once: an event is forgotten after its deliveries are stored. Their ids are those
    /// that the event would have had at first, so that routers may do the same work.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.router.rules().changes();
        let mut unread = self.members.len();
        loop {
            let pause = match self.catch_up().await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(
                        code = codes::CATCH_UP_FAILED,
                        %error,
                        "cannot catch up with events of members, retrying"
                    );
                    PAUSE
                }
            };
            let is_read = async {
                loop {
                    if changes.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    let before = std::mem::replace(&mut unread, self.unread());
                    if unread < before {
                        return;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = is_read => {}
            }
        }
    }

    /// The number of members whose rules were not read.
    fn unread(&self) -> usize {
        let rules = self.router.rules().current();
        let members = self.members.iter();
        members.filter(|member| rules.is_unread(member)).count()
    }

    async fn catch_up(&self) -> Result<(), BusError> {
        for member in &self.members {
            if !self.router.is_loaded() || self.router.rules().current().is_unread(member) {
                continue;
            }
            let waiting = self.postponed.of(member).await?;
            for postponed in &waiting {
                self.route(postponed).await?;
                self.postponed.remove(postponed).await?;
            }
            if !waiting.is_empty() {
                tracing::info!(
                    code = codes::CAUGHT_UP,
                    source = %member,
                    events = waiting.len(),
                    "events of a member matched with its rules"
                );
            }
        }
        Ok(())
    }

    async fn route(&self, postponed: &PostponedEvent) -> Result<(), BusError> {
        let Some(event) = self.postponed.event(postponed).await? else {
            tracing::error!(
                code = codes::POSTPONED_EVENT_GONE,
                event.id = postponed.event_id,
                source = postponed.cluster,
                sequence = postponed.sequence,
                "event gone before the rules of its member were read"
            );
            return Ok(());
        };
        let (rules, clusters) = self.router.known();
        let context = PlanContext {
            event_sequence: postponed.sequence,
            planned_at: to_proto(jiff::Timestamp::now()),
            generation: 0,
        };
        let event = Arc::new(event);
        let (planned_rules, planned_event) = (rules.clone(), event.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let plan = plan(&planned_rules, &planned_event, &clusters, context);
            of_member(&planned_rules, &planned_event, plan.deliveries)
        });
        let deliveries = planned.await;
        let deliveries = deliveries.map_err(|error| BusError::Unavailable(error.to_string()))?;
        self.router.store(&deliveries, &event, &rules).await;
        Ok(())
    }
}

/// The deliveries because of Alerts that live in the event's cluster. The others are planned.
fn of_member(rules: &Rules, event: &Event, deliveries: Vec<Delivery>) -> Vec<Delivery> {
    debug_assert!(!rules.is_unread(&event.cluster), "its rules are read");
    let is_of_member = |delivery: &Delivery| {
        let alert = delivery.alert.as_ref();
        alert.is_some_and(|alert| origin::split(&alert.namespace).0 == Some(event.cluster.as_str()))
    };
    deliveries.into_iter().filter(is_of_member).collect()
}
