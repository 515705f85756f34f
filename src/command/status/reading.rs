//! Reads the status from the bus.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::bus::circuits::Circuits;
use tidings_core::bus::clusters::{ClusterRecords, Clusters};
use tidings_core::bus::workload::Workload;
use tidings_core::bus::{Bus, streams};
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, Heartbeat};

/// The number of requests to the server at a time.
const REQUESTS: usize = 16;

/// What the bus says at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The time of the server's clock.
    pub now: Timestamp,
    /// The last report of each process.
    pub heartbeats: Vec<Heartbeat>,
    /// The clusters that operators added.
    pub clusters: Clusters,
    /// When the last event was stored, for clusters whose processes have not reported one.
    pub last_events: BTreeMap<String, Timestamp>,
    /// What waits for routers and workers.
    pub workload: Workload,
    /// The circuits that are not closed.
    pub circuits: Vec<Circuit>,
    /// The dead letters.
    pub dead_letters: DeadLetters,
    /// The number of deliveries that were found to be lost.
    pub lost: u64,
}

/// The stream of dead letters.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadLetters {
    /// How many there are.
    pub count: u64,
    /// When the last one was stored, if there is any.
    pub last_at: Option<Timestamp>,
}

impl Reading {
    /// Reads everything.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream or bucket does not exist.
    pub async fn of(bus: &Bus) -> anyhow::Result<Self> {
        bus.sample_clock()
            .await
            .context("cannot read the stream EVENTS: is Tidings running?")?;
        let (heartbeats, clusters, workload, circuits, dead_letters, lost) = tokio::try_join!(
            async {
                bus.heartbeats()
                    .await
                    .context("cannot read the bucket heartbeats")
            },
            clusters(bus),
            async { bus.workload().await.context("cannot read what waits") },
            circuits(bus),
            dead_letters(bus),
            async {
                bus.lost_deliveries()
                    .await
                    .context("cannot read the bucket counts")
            },
        )?;
        let last_events = last_events(bus, &heartbeats, &clusters).await?;
        Ok(Self {
            now: bus.clock().now(),
            heartbeats,
            clusters,
            last_events,
            workload,
            circuits,
            dead_letters,
            lost,
        })
    }
}

async fn clusters(bus: &Bus) -> anyhow::Result<Clusters> {
    let read = async { ClusterRecords::open(bus).await?.all().await };
    read.await.context("cannot read the bucket clusters")
}

async fn circuits(bus: &Bus) -> anyhow::Result<Vec<Circuit>> {
    let read = async { Circuits::open(bus).await?.all().await };
    let stored = read.await.context("cannot read the bucket limits")?;
    let circuits = stored.into_iter().map(|stored| stored.circuit);
    let mut circuits: Vec<Circuit> = circuits
        .filter(|circuit| circuit.state() != State::Closed)
        .collect();
    circuits.sort_by_key(Destination::of);
    Ok(circuits)
}

async fn dead_letters(bus: &Bus) -> anyhow::Result<DeadLetters> {
    let stream = bus.jetstream().get_stream(streams::DEAD).await;
    let stream = stream.context("cannot read the stream DEAD")?;
    let state = &stream.cached_info().state;
    let last = Timestamp::from_nanosecond(state.last_timestamp.unix_timestamp_nanos());
    Ok(DeadLetters {
        count: state.messages,
        last_at: last.ok().filter(|_| state.messages > 0),
    })
}

/// An ingest that restarted has not stored an event yet, so the stream is asked.
async fn last_events(
    bus: &Bus,
    heartbeats: &[Heartbeat],
    clusters: &Clusters,
) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let ingests = || {
        heartbeats
            .iter()
            .filter(|report| !report.cluster.is_empty())
    };
    let mut names: BTreeSet<&str> = ingests().map(|report| report.cluster.as_str()).collect();
    names.extend(clusters.keys().map(String::as_str));
    for report in ingests().filter(|report| report.last_event_at.is_some()) {
        names.remove(report.cluster.as_str());
    }
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let found: Vec<(String, Option<Timestamp>)> = stream::iter(names)
        .map(async |name: String| {
            let last = bus.last_event_at(&name).await;
            let last = last.context("cannot read the stream EVENTS")?;
            anyhow::Ok((name, last))
        })
        .buffer_unordered(REQUESTS)
        .try_collect()
        .await?;
    let stored = found
        .into_iter()
        .filter_map(|(name, last)| Some((name, last?)));
    Ok(stored.collect())
}
