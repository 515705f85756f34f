//! Which events of an edge the hub has.
//!
//! The record may be behind: it is written after the hub confirmed events. It says from which
//! sequence of the hub on later events may be stored, and the forwarder looks there before it sends
//! any. So no event is stored twice, however long the edge was cut off or did not run.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::known::Known;
use crate::bus::records::Records;
use crate::bus::{Bus, BusError, EventsStream, streams, unavailable};
use crate::model::subject;
use crate::model::time::{from_proto, to_proto};
use crate::wire::EdgePosition;

/// The key of the record.
const KEY: &str = "position";
/// The record is written at most this often while events are forwarded.
const RECORD_EVERY: Duration = Duration::from_millis(250);
/// The events of a cluster that are read at a time.
const PAGE: usize = 1_000;

/// EVENTS of the hub: its last event may have a higher sequence, but no lower one.
#[derive(Clone, Copy, Debug)]
pub(super) struct HubEvents {
    pub(super) created: Timestamp,
    pub(super) last_sequence: u64,
}

/// The position, and its record.
pub(super) struct Position {
    records: Records,
    revision: Option<u64>,
    position: EdgePosition,
    recorded: EdgePosition,
    recorded_at: Option<Instant>,
}

impl Position {
    /// Reads the record. Before the first event is sent, it is written.
    pub(super) async fn open(edge: &Bus, hub: HubEvents) -> Result<Self, BusError> {
        let stream = edge.events_stream().await?;
        let records = Records::open(edge, streams::EDGE).await?;
        let (recorded, revision) = records.load::<EdgePosition>(KEY).await?;
        let mut position = Self {
            records,
            revision,
            position: start(recorded.as_ref(), stream, hub),
            recorded: recorded.unwrap_or_default(),
            recorded_at: None,
        };
        position.record().await?;
        Ok(position)
    }

    /// The hub has all events of the edge up to this sequence.
    pub(super) fn forwarded(&self) -> u64 {
        self.position.forwarded
    }

    /// The hub stores the following events above this sequence.
    pub(super) fn hub_sequence(&self) -> u64 {
        self.position.hub_sequence
    }

    /// Notes that the hub has all events up to `sequence`, and which sequences it gave to the last
    /// ones. `known` are events that were found there, and that follow.
    pub(super) fn advance(&mut self, sequence: u64, stored: &[u64], known: &Known) {
        self.position.forwarded = sequence;
        // Those that were found have lower sequences than those that were stored since.
        if known.is_empty() {
            let stored = stored.iter().copied().max().unwrap_or_default();
            self.position.hub_sequence = self.position.hub_sequence.max(stored);
        }
    }

    /// Writes the record if it is due.
    pub(super) async fn record_if_due(&mut self) -> Result<(), BusError> {
        let is_recent = |at: Instant| at.elapsed() < RECORD_EVERY;
        match self.recorded_at.is_some_and(is_recent) {
            true => Ok(()),
            false => self.record().await,
        }
    }

    /// Writes the record if the position has changed.
    pub(super) async fn record(&mut self) -> Result<(), BusError> {
        if self.position == self.recorded {
            return Ok(());
        }
        let stored = self
            .records
            .store(KEY, &self.position, self.revision)
            .await?;
        // No other process writes it. A write whose confirmation was lost has changed it.
        self.revision = Some(stored.ok_or_else(|| unavailable("the position was changed"))?);
        self.recorded = self.position;
        self.recorded_at = Some(Instant::now());
        Ok(())
    }

    /// The recorded sequence.
    pub(super) fn recorded(&self) -> u64 {
        self.recorded.forwarded
    }
}

/// The sequence up to which the record says that the hub has the events.
pub(super) async fn recorded(edge: &Bus) -> Result<u64, BusError> {
    let stream = edge.events_stream().await?;
    let records = Records::open(edge, streams::EDGE).await?;
    let (recorded, _) = records.load::<EdgePosition>(KEY).await?;
    let recorded = recorded.filter(|recorded| is_of(recorded, stream));
    Ok(recorded.map_or(0, |recorded| recorded.forwarded))
}

fn is_of(recorded: &EdgePosition, stream: EventsStream) -> bool {
    from_proto(recorded.stream_created) == Some(stream.created)
}

/// Where to begin.
fn start(recorded: Option<&EdgePosition>, stream: EventsStream, hub: HubEvents) -> EdgePosition {
    let of_stream = recorded.filter(|recorded| is_of(recorded, stream));
    let forwarded = of_stream.map_or(0, |recorded| recorded.forwarded);
    let hub_sequence = match recorded {
        // The hub's sequences go back if it is restored from a backup.
        Some(recorded) if from_proto(recorded.hub_created) == Some(hub.created) => {
            recorded.hub_sequence.min(hub.last_sequence)
        }
        // The stream is another one. Some events may be there already.
        Some(_) => 0,
        None => hub.last_sequence,
    };
    EdgePosition {
        stream_created: Some(to_proto(stream.created)),
        forwarded,
        hub_created: Some(to_proto(hub.created)),
        hub_sequence,
    }
}

impl Bus {
    /// What the hub says about EVENTS, also to a member.
    pub(super) async fn hub_events(&self) -> Result<HubEvents, BusError> {
        if self.member().is_none() {
            let info = self.stream_info(streams::EVENTS).await;
            let info = info.map_err(BusError::Unavailable)?;
            return Ok(HubEvents {
                created: info.created,
                last_sequence: info.last_sequence(),
            });
        }
        let state = self.member_state().await.map_err(BusError::Unavailable)?;
        let created = from_proto(state.created);
        Ok(HubEvents {
            created: created
                .ok_or_else(|| unavailable("the hub does not say which EVENTS it has"))?,
            last_sequence: state.last_sequence,
        })
    }

    /// The sequence of the last event of the edge's own stream.
    pub(super) async fn last_event(&self) -> Result<u64, BusError> {
        let info = self.stream_info(streams::EVENTS).await;
        info.map(|info| info.last_sequence())
            .map_err(BusError::Unavailable)
    }

    /// The events of a cluster that are stored after a sequence.
    pub(super) async fn stored_ids(&self, cluster: &str, sequence: u64) -> Result<Known, BusError> {
        let filter = subject::event_filter(Some(cluster), None, None, None);
        let (mut ids, mut after) = (Known::default(), sequence);
        loop {
            let later = self
                .events_after(cluster, filter.clone(), after, PAGE)
                .await?;
            let last = later.events.last().map(|event| event.sequence);
            for later in later.events {
                ids.add(&later.event.id);
            }
            match last {
                _ if later.is_complete => return Ok(ids),
                Some(last) => after = last,
                None => return Err(unavailable("stored events cannot be read")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stream(created: i64) -> EventsStream {
        EventsStream {
            created: at(created),
            dedupe_interval: Duration::from_secs(300),
        }
    }

    fn hub(created: i64, last_sequence: u64) -> HubEvents {
        HubEvents {
            created: at(created),
            last_sequence,
        }
    }

    #[test]
    fn the_start_is_where_later_events_may_be_stored() {
        let recorded = EdgePosition {
            stream_created: Some(to_proto(at(1))),
            forwarded: 70,
            hub_created: Some(to_proto(at(2))),
            hub_sequence: 900,
        };
        for (what, recorded, stream_created, hub, expected) in [
            ("the first start", None, 1, hub(2, 500), (0, 500)),
            ("a restart", Some(&recorded), 1, hub(2, 1000), (70, 900)),
            ("an old report", Some(&recorded), 1, hub(2, 890), (70, 890)),
            ("another hub", Some(&recorded), 1, hub(3, 20), (70, 0)),
            ("another edge", Some(&recorded), 9, hub(2, 1000), (0, 900)),
        ] {
            let start = start(recorded, stream(stream_created), hub);
            assert_eq!((start.forwarded, start.hub_sequence), expected, "{what}");
        }
    }
}
