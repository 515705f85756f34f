//! Reads what the streams and buckets hold of the wanted events. Every part has a bound; what was
//! not read to its end is named.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use jiff::Timestamp;
use tidings_core::bus::pending_deliveries::PendingDelivery;
use tidings_core::bus::search::SearchEnd;
use tidings_core::bus::{Bus, streams};
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::time;
use tidings_core::wire::Outcome as PublishedOutcome;
use tidings_core::{DeadLetter, Event};

use super::bounds::Bounds;
use super::events::latest_events;
use super::find_deliveries::find_deliveries;
use super::query::Query;
use crate::command::status::reading::Reading;

/// The most events before the wanted time that are kept.
const MOST_EARLIER: usize = 5;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which events.
    pub query: Query,
    /// Only events that were stored at this time or later.
    pub since: Timestamp,
    /// Only events of this cluster.
    pub cluster: Option<String>,
    /// The most events: the latest.
    pub limit: usize,
    /// How much may be read.
    pub bounds: Bounds,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEvent {
    /// The event, or its excerpt.
    pub event: Event,
    /// Its sequence in EVENTS; 0 if it is no longer stored there.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Option<Timestamp>,
}

/// An outcome as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundOutcome {
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The outcome.
    pub outcome: PublishedOutcome,
}

/// Where the routers are in EVENTS.
#[derive(Clone, Copy, Debug)]
pub struct RouterPosition {
    /// All deliveries of the events up to this sequence are stored.
    pub routed_up_to: u64,
    /// The last event that a router received.
    pub read_up_to: u64,
}

/// Everything that is known of the wanted events.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The state of the bus: heartbeats, clusters, circuits.
    pub reading: Reading,
    /// The events, oldest first.
    pub events: Vec<FoundEvent>,
    /// Whether there are more events than were asked for.
    pub has_more_events: bool,
    /// If there are none: the last events of the object before the wanted time.
    pub earlier: Vec<FoundEvent>,
    /// The deliveries that are ready or parked.
    pub pending: Vec<PendingDelivery>,
    /// The outcomes, oldest first.
    pub outcomes: Vec<FoundOutcome>,
    /// The dead letters, oldest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Whether only outcomes of Providers were read whose deliveries are stored.
    pub has_skipped_outcomes: bool,
    /// The streams that were not read to the end.
    pub cut: BTreeSet<&'static str>,
    /// `None` if no router ever ran.
    pub routers: Option<RouterPosition>,
}

/// Reads everything about the wanted events.
///
/// # Errors
/// The bus is unavailable, or a stream or bucket does not exist.
pub async fn gather(bus: &Bus, request: &Request) -> anyhow::Result<Facts> {
    let facts = read(bus, request).await?;
    let Some(event) = event_of_delivery(request, &facts) else {
        return Ok(facts);
    };
    let query = Query::Event(event.id.clone());
    let request = Request {
        query,
        ..request.clone()
    };
    let mut of_event = read(bus, &request).await?;
    of_event.has_more_events |= facts.events.len() > 1;
    Ok(of_event)
}

/// If the wanted id is that of deliveries: the event of the last of them.
fn event_of_delivery<'a>(request: &Request, facts: &'a Facts) -> Option<&'a Event> {
    let Query::Event(id) = &request.query else {
        return None;
    };
    let mut events = facts.events.iter().map(|found| &found.event);
    let last = events.clone().next_back();
    last.filter(|_| !events.any(|event| event.id.starts_with(id.as_str())))
}

async fn read(bus: &Bus, request: &Request) -> anyhow::Result<Facts> {
    let reading = Reading::of(bus).await?;
    let mut facts = Facts {
        routers: routers(bus).await?,
        reading,
        ..Facts::default()
    };
    find_events(bus, request, &mut facts).await?;
    find_deliveries(bus, request, &mut facts).await?;
    add_unstored_events(request, &mut facts);
    if facts.events.is_empty() {
        find_earlier(bus, request, &mut facts).await?;
    }
    Ok(facts)
}

/// Where the routers are in EVENTS; `None` if they have no consumer yet.
async fn routers(bus: &Bus) -> anyhow::Result<Option<RouterPosition>> {
    const UNREADABLE: &str = "cannot read the position of the routers";
    let events = bus.jetstream().get_stream_no_info(streams::EVENTS).await;
    let info = match events
        .context(UNREADABLE)?
        .consumer_info(streams::ROUTER)
        .await
    {
        Ok(info) => info,
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(UNREADABLE),
    };
    Ok(Some(RouterPosition {
        routed_up_to: info.ack_floor.stream_sequence,
        read_up_to: info.delivered.stream_sequence,
    }))
}

async fn find_events(bus: &Bus, request: &Request, facts: &mut Facts) -> anyhow::Result<()> {
    let found = latest_events(bus, request, request.since, request.limit).await?;
    facts.has_more_events = found.has_more;
    if found.end == SearchEnd::Cut {
        facts.cut.insert(streams::EVENTS);
    }
    facts.events = found.events.into();
    Ok(())
}

/// The object's last events, however old.
async fn find_earlier(bus: &Bus, request: &Request, facts: &mut Facts) -> anyhow::Result<()> {
    if !matches!(request.query, Query::Object { .. }) {
        return Ok(());
    }
    let found = latest_events(bus, request, Timestamp::UNIX_EPOCH, MOST_EARLIER).await?;
    if found.end == SearchEnd::Cut {
        facts.cut.insert(streams::EVENTS);
    }
    facts.earlier = found.events.into();
    Ok(())
}

/// Events that EVENTS no longer holds, as their deliveries carry them.
fn add_unstored_events(request: &Request, facts: &mut Facts) {
    let known: BTreeSet<String> = facts
        .events
        .iter()
        .map(|found| found.event.id.clone())
        .collect();
    let pending = facts.pending.iter().map(|found| &found.delivery);
    let dead = facts.dead_letters.iter();
    let deliveries = pending.chain(dead.filter_map(|dead| dead.delivery.as_ref()));
    let mut carried: HashMap<String, Event> = deliveries
        .filter(|delivery| !known.contains(&delivery.event_id))
        .filter_map(|delivery| Some((delivery.event_id.clone(), carried_event(delivery)?.clone())))
        .collect();
    for found in &facts.outcomes {
        let outcome = &found.outcome;
        if !outcome.event_id.is_empty() && !known.contains(&outcome.event_id) {
            carried
                .entry(outcome.event_id.clone())
                .or_insert_with(|| Event {
                    id: outcome.event_id.clone(),
                    cluster: outcome.cluster.clone(),
                    ..Event::default()
                });
        }
    }
    let unstored = carried.into_values().map(|event| FoundEvent {
        event,
        sequence: 0,
        stored_at: None,
    });
    facts.events.extend(unstored);
    facts.events.sort_by_key(|found| {
        (
            time::from_proto(found.event.received_at),
            found.event.id.clone(),
        )
    });
    let surplus = facts.events.len().saturating_sub(request.limit);
    facts.has_more_events |= surplus > 0;
    facts.events.drain(..surplus);
    // The copies in the deliveries are no longer needed.
    for delivery in facts
        .pending
        .iter_mut()
        .map(|found| &mut found.delivery)
        .chain(
            facts
                .dead_letters
                .iter_mut()
                .filter_map(|dead| dead.delivery.as_mut()),
        )
    {
        delivery.event = None;
        delivery.excerpt = None;
    }
}
