//! What the bus holds of a cluster, and what `tidings fleet remove` and `rename` do to it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidings_core::bus::Bus;
use tidings_core::bus::cluster_content::{ClusterEvents, StateRecord, WaitingDelivery};
use tidings_core::bus::clusters::{ClusterRecords, names_of_cluster};
use tidings_core::model::time::to_proto;
use tidings_core::runtime::failpoint::reach;
use tidings_core::wire::{Heartbeat, Outcome as PublishedOutcome, Record};
use tidings_core::{Attempt, DeadLetter, Delivery, Outcome, Reason};
use tidings_workers::newest_wins::described::{DescribedState, described};

use super::edges::{Edges, wait_for_reports};
use crate::command::dead_letters::find;

/// The most ids of each kind that are listed.
const MOST_LISTED: usize = 1_000;
/// A delivery that a worker parks meanwhile is found in a further pass.
const MOST_PASSES: usize = 10;

/// What the bus holds of a cluster.
pub struct Content {
    pub events: ClusterEvents,
    pub deliveries: Vec<WaitingDelivery>,
    pub dead_letters: Vec<find::StoredDeadLetter>,
    pub states: Vec<StateRecord>,
    pub ids: Ids,
    pub heartbeats: Vec<Heartbeat>,
    pub edges: Edges,
}

/// The ids at services that the cluster's states have.
#[derive(Default)]
pub struct Ids {
    /// Commit statuses.
    pub statuses: Listed,
    /// Incidents that are open.
    pub open_incidents: Listed,
    /// The marks of comments.
    pub comments: Listed,
}

/// Ids of one kind, up to a number.
#[derive(Default)]
pub struct Listed {
    pub ids: BTreeSet<String>,
    /// How many more there are.
    pub more: u64,
}

impl Content {
    /// Reads everything, after each edge that runs has reported what it holds.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream or bucket does not exist.
    pub async fn reported(bus: &Bus, cluster: &str) -> anyhow::Result<Self> {
        let clusters = ClusterRecords::open(bus).await?.all().await?;
        let since = wait_for_reports(bus, &names_of_cluster(&clusters, cluster)).await?;
        Self::of(bus, cluster, Some(since)).await
    }

    /// Reads everything. An edge whose last report is older than `since` is silent.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream or bucket does not exist.
    pub async fn of(bus: &Bus, cluster: &str, since: Option<Timestamp>) -> anyhow::Result<Self> {
        let mut ids = Ids::default();
        let states = bus.states_of(cluster, |record| ids.add(record)).await;
        let filter = find::Filter {
            cluster: Some(cluster.to_owned()),
            ..find::Filter::default()
        };
        let reported = bus.heartbeats().await;
        let reported = reported.context("cannot read the bucket heartbeats")?;
        bus.sample_clock().await?;
        let now = bus.clock().now();
        let clusters = ClusterRecords::open(bus).await?.all().await?;
        let names = names_of_cluster(&clusters, cluster);
        let edges = Edges::of(&reported, cluster, &names, since, now);
        let of_cluster = |report: &Heartbeat| report.cluster == cluster;
        let heartbeats: Vec<_> = reported.into_iter().filter(of_cluster).collect();
        Ok(Self {
            events: bus
                .events_of(cluster)
                .await
                .context("cannot read the stream EVENTS")?,
            deliveries: bus
                .deliveries_of(cluster)
                .await
                .context("cannot read the stream DELIVERIES")?,
            dead_letters: find::find(bus, &filter).await?.dead_letters,
            states: states.context("cannot read the bucket latest")?,
            ids,
            heartbeats,
            edges,
        })
    }

    /// The number of parked deliveries.
    pub fn parked(&self) -> usize {
        let parked = |waiting: &&WaitingDelivery| waiting.is_parked;
        self.deliveries.iter().filter(parked).count()
    }

    /// The number of deliveries that wait for a worker or are with one.
    pub fn ready(&self) -> usize {
        self.deliveries.len() - self.parked()
    }

    /// The numbers, for programs.
    pub fn json(&self) -> Value {
        json!({
            "events": self.events.stored,
            "unroutedEvents": self.events.unrouted,
            "readyDeliveries": self.ready(),
            "parkedDeliveries": self.parked(),
            "deadLetters": self.dead_letters.len(),
            "states": self.states.len(),
            "openIncidents": self.ids.open_incidents.ids,
            "openIncidentsNotListed": self.ids.open_incidents.more,
            "heartbeats": self.heartbeats.len(),
            "edgeEvents": self.edges.waiting,
            "silentEdges": self.edges.silent,
        })
    }

    /// Deletes the heartbeats.
    ///
    /// # Errors
    /// Some may still be there.
    pub async fn delete_heartbeats(&self, bus: &Bus) -> anyhow::Result<()> {
        for heartbeat in &self.heartbeats {
            bus.remove_heartbeat(heartbeat).await?;
        }
        Ok(())
    }
}

impl Ids {
    fn add(&mut self, record: &Record) {
        let state = record.desired.as_ref().map(|desired| &desired.state);
        let (ids, id) = match state.and_then(|state| described(state)) {
            Some(DescribedState::Incident { key, is_open: true }) => {
                (&mut self.open_incidents, key)
            }
            Some(DescribedState::CommitStatus { id }) => (&mut self.statuses, id),
            Some(DescribedState::Comment { mark }) => (&mut self.comments, mark),
            Some(DescribedState::Incident { is_open: false, .. }) | None => return,
        };
        ids.add(id);
    }
}

impl Listed {
    fn add(&mut self, id: String) {
        if self.ids.len() < MOST_LISTED {
            self.ids.insert(id);
        } else if !self.ids.contains(&id) {
            self.more += 1;
        }
    }

    /// A line that says how many are not listed, if there are more.
    pub fn rest(&self, what: &str) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more {what}, which are not listed", self.more))
    }
}

/// Stores all deliveries of a cluster as dead letters, and deletes them. Returns how many.
///
/// # Guarantees
/// A dead letter is stored before its delivery is deleted. A run that was interrupted can be
/// repeated: a delivery has one dead letter.
///
/// # Errors
/// The bus is unavailable, or workers park deliveries again and again.
pub async fn discard(bus: &Bus, cluster: &str, content: &Content) -> anyhow::Result<usize> {
    let letters = content.dead_letters.iter();
    let mut dead: BTreeSet<(String, u32)> = letters.map(|it| key(&it.delivery())).collect();
    let mut discarded = 0;
    let mut waiting = content.deliveries.clone();
    for _ in 0..MOST_PASSES {
        for delivery in &waiting {
            discarded +=
                usize::from(discard_one(bus, cluster, delivery.sequence, &mut dead).await?);
        }
        // What was published just now is flushed with the next request.
        waiting = bus.deliveries_of(cluster).await?;
        if waiting.is_empty() {
            return Ok(discarded);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("workers still attempt deliveries of cluster {cluster}; run the command again")
}

fn key(delivery: &Delivery) -> (String, u32) {
    (delivery.id.clone(), delivery.generation)
}

async fn discard_one(
    bus: &Bus,
    cluster: &str,
    sequence: u64,
    dead: &mut BTreeSet<(String, u32)>,
) -> anyhow::Result<bool> {
    let Some(delivery) = bus.waiting_delivery(sequence).await? else {
        return Ok(false);
    };
    reach("fleet:discarding");
    if dead.insert(key(&delivery)) {
        let detail = format!("cluster {cluster} was removed with --discard");
        let letter = DeadLetter {
            delivery: Some(delivery.clone()),
            reason: Reason::Discarded.as_str().to_owned(),
            detail,
            died_at: Some(to_proto(jiff::Timestamp::now())),
        };
        bus.store_dead_letter(&letter).await?;
    }
    reach("fleet:dead-letter-stored");
    // Before the message is deleted, so that it does not count as lost.
    bus.publish_outcome(&outcome(delivery, cluster), None).await;
    bus.client().flush().await?;
    bus.delete_delivery(sequence).await?;
    reach("fleet:discarded");
    Ok(true)
}

fn outcome(delivery: Delivery, cluster: &str) -> PublishedOutcome {
    PublishedOutcome {
        cluster: cluster.to_owned(),
        attempt: Some(Attempt {
            number: delivery.attempt + 1,
            outcome: Outcome::Dead.as_str().to_owned(),
            reason: Reason::Discarded.as_str().to_owned(),
            detail: format!("cluster {cluster} was removed with --discard"),
            ..Attempt::default()
        }),
        delivery_id: delivery.id,
        event_id: delivery.event_id,
        alert: delivery.alert,
        planned_at: delivery.planned_at.filter(|_| delivery.generation == 0),
        provider: delivery.provider,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_not_listed_are_counted() {
        let mut listed = Listed::default();
        for number in (0..MOST_LISTED + 3).chain([0]) {
            listed.add(format!("{number:04}"));
        }
        assert_eq!((listed.ids.len(), listed.more), (MOST_LISTED, 3));
        let rest = listed.rest("open incidents").unwrap();
        assert!(rest.contains("3 more open incidents"), "{rest}");
        assert_eq!(Listed::default().rest("open incidents"), None);
    }
}
