//! Matches events again that were routed without the rules of their member, once these are read.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tidings_core::bus::BusError;
use tidings_core::bus::clusters::{Clusters, names_of_cluster};
use tidings_core::bus::postponed::{PostponedEvents, WaitingEvent};
use tidings_core::model::origin;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::traces::carrying;
use tidings_core::{Delivery, Event};
use tidings_rules::Rules;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::route::{Router, trace};

/// How often it is looked for events that another router postponed.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often it is looked for events of clusters that are no source of rules any more.
const FORMER_INTERVAL: Duration = Duration::from_secs(3600);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Catches up with postponed events of some members.
pub struct CatchUp {
    /// Stores the deliveries.
    pub router: Arc<Router>,
    /// The events that wait.
    pub postponed: PostponedEvents,
    /// The members whose rules the router reads; may be empty.
    pub members: Vec<Arc<str>>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    /// Its deliveries are stored.
    Matched,
    /// It is not stored any more.
    Gone,
    /// Another router was faster.
    ByAnother,
    /// It waits on.
    Left,
}

impl CatchUp {
    /// Catches up until `stop`: when the rules of a member are read, and every minute.
    ///
    /// # Guarantees
    /// At least once: an event is forgotten after its deliveries are stored. Their ids are those
    /// that the event would have had at first, so that routers may do the same work at a time. An
    /// event that fails waits on, and delays no others. One that is gone is counted.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.run_forever()).await;
    }

    async fn run_forever(self) {
        let mut changes = self.router.rules().changes();
        let mut unread = self.members.len();
        let mut former_at = Instant::now();
        loop {
            let mut is_failed = self.catch_up().await;
            // Without the clusters, the names of renamed members are not known.
            if former_at <= Instant::now() && self.router.is_loaded() {
                let former = self.forget_former().await;
                is_failed |= former.inspect_err(|error| log_failure("", error)).is_err();
                former_at = Instant::now() + FORMER_INTERVAL;
            }
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
                () = sleep(if is_failed { PAUSE } else { INTERVAL }) => {}
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

    /// Catches up with each member whose rules are read. Returns whether to try again
    /// soon.
    async fn catch_up(&self) -> bool {
        if !self.router.is_loaded() {
            return true;
        }
        let mut is_failed = false;
        for member in &self.members {
            if self.router.rules().current().is_unread(member) {
                continue;
            }
            if let Err(error) = self.catch_up_with(member).await {
                log_failure(member, &error);
                is_failed = true;
            }
        }
        is_failed
    }

    async fn catch_up_with(&self, member: &str) -> Result<(), BusError> {
        let mut matched = 0_usize;
        let clusters = self.router.clusters().current();
        for name in self.names_of(member, &clusters) {
            for waiting in self.postponed.of(name).await? {
                let handled = self.handle(&waiting, member).await?;
                matched += usize::from(handled == Handled::Matched);
            }
        }
        if matched > 0 {
            tracing::info!(
                code = codes::CAUGHT_UP,
                source = member,
                events = matched,
                "events of a member matched with its rules"
            );
        }
        Ok(())
    }

    /// The names under which events of a member may wait: its own, and those of the same cluster
    /// that are no source any more.
    fn names_of<'a>(&self, member: &'a str, clusters: &'a Clusters) -> Vec<&'a str> {
        let names = names_of_cluster(clusters, member).into_iter();
        let is_own = |name: &&str| *name == member || !self.is_member(name);
        names.filter(is_own).collect()
    }

    fn is_member(&self, name: &str) -> bool {
        self.members.iter().any(|member| **member == *name)
    }

    async fn handle(&self, waiting: &WaitingEvent, member: &str) -> Result<Handled, BusError> {
        // The list may be old. The server recognizes equal deliveries for two minutes only.
        if !self.postponed.is_waiting(waiting).await? {
            return Ok(Handled::ByAnother);
        }
        let Some(event) = self.postponed.event(waiting).await? else {
            self.forget(waiting).await?;
            return Ok(Handled::Gone);
        };
        if !self.route(waiting, Arc::new(event), member).await {
            return Ok(Handled::Left);
        }
        self.postponed.remove(waiting).await?;
        Ok(Handled::Matched)
    }

    /// Stores the deliveries of an event. Returns whether they are stored.
    async fn route(&self, waiting: &WaitingEvent, event: Arc<Event>, member: &str) -> bool {
        let rules = self.router.rules().current();
        let sequence = waiting.postponed.sequence;
        let plan = self.router.plan_postponed(&event, sequence, &rules);
        let error = match AssertUnwindSafe(plan).catch_unwind().await {
            Ok(Some(plan)) => {
                let deliveries = of_member(&rules, member, plan.deliveries);
                let mut span = trace::start(&event, None);
                let storing = self.router.store(&deliveries, &event, &rules);
                let outcome = carrying(span.context(), storing).await;
                trace::describe(&mut span, deliveries.len(), outcome);
                return true;
            }
            Ok(None) => "too many costly events of its namespace wait",
            Err(_) => "the plan failed, which is a defect of Tidings",
        };
        self.router.metrics().router_postponed_failures_total.inc();
        tracing::error!(
            code = codes::POSTPONED_EVENT_FAILED,
            event.id,
            source = member,
            sequence,
            error,
            "event not matched with the rules of its member"
        );
        false
    }

    /// Forgets the events of clusters that are no source any more, once the events are gone. Until
    /// then another router may read the rules, such as during an update.
    async fn forget_former(&self) -> Result<(), BusError> {
        let clusters = self.router.clusters().current();
        let members = self.members.iter();
        let names: BTreeSet<&str> = members
            .flat_map(|member| names_of_cluster(&clusters, member))
            .collect();
        for waiting in self.postponed.all().await? {
            if names.contains(waiting.postponed.cluster.as_str()) {
                continue;
            }
            // Later events are still stored too.
            if self.postponed.event(&waiting).await?.is_some() {
                break;
            }
            self.forget(&waiting).await?;
        }
        Ok(())
    }

    /// Counts an event that is gone, and removes its record.
    async fn forget(&self, waiting: &WaitingEvent) -> Result<(), BusError> {
        self.postponed.remove(waiting).await?;
        self.router.metrics().router_postponed_gone_total.inc();
        let postponed = &waiting.postponed;
        tracing::error!(
            code = codes::POSTPONED_EVENT_GONE,
            event.id = postponed.event_id,
            source = postponed.cluster,
            sequence = postponed.sequence,
            "event gone before the rules of its member were read"
        );
        Ok(())
    }
}

fn log_failure(member: &str, error: &BusError) {
    tracing::warn!(
        code = codes::CATCH_UP_FAILED,
        source = member,
        %error,
        "cannot catch up with events of members, retrying"
    );
}

/// The deliveries because of Alerts that live in the member. The others are planned.
fn of_member(rules: &Rules, member: &str, deliveries: Vec<Delivery>) -> Vec<Delivery> {
    debug_assert!(!rules.is_unread(member), "its rules are read");
    let is_of_member = |delivery: &Delivery| {
        let alert = delivery.alert.as_ref();
        alert.is_some_and(|alert| origin::split(&alert.namespace).0 == Some(member))
    };
    deliveries.into_iter().filter(is_of_member).collect()
}
