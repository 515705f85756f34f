//! Decides where the routers' consumer must begin, and whether its state is lost. No I/O.

use jiff::Timestamp;

use crate::bus::consumers::ConsumerState;
use crate::model::time::{from_proto, to_proto};
use crate::wire::ConsumerPosition;

/// What is recorded of the routers' position.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// No router ever read EVENTS.
    Never,
    /// The last recorded position.
    Position(ConsumerPosition),
    /// There is no record, or it cannot be decoded, and a router may have read EVENTS.
    Missing,
}

/// What EVENTS holds.
#[derive(Clone, Copy, Debug)]
pub struct EventsRange {
    /// When the stream was created.
    pub created: Timestamp,
    /// The sequence of the first stored event.
    pub first: u64,
    /// The sequence of the last event.
    pub last: u64,
    /// How many events in between were deleted. A consumer passes them without a delivery.
    pub deleted: u64,
}

/// Where the consumer must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first event: no router read this stream before.
    Beginning,
    /// After this sequence.
    After(u64),
}

impl EventsRange {
    fn is_of(&self, position: &ConsumerPosition) -> bool {
        from_proto(position.stream_created) == Some(self.created)
    }

    /// The position before the first start of a router.
    pub fn beginning(&self) -> ConsumerPosition {
        ConsumerPosition {
            stream_created: Some(to_proto(self.created)),
            ..ConsumerPosition::default()
        }
    }
}

/// Where the consumer must begin. `stored_id` is the id of the event that is stored with the
/// recorded sequence, if there is one.
///
/// # Errors
/// Nothing usable is recorded. The error says why.
pub fn start(
    recorded: &Recorded,
    events: &EventsRange,
    stored_id: Option<&str>,
) -> Result<Start, String> {
    let position = match recorded {
        _ if events.last == 0 => return Ok(Start::Beginning),
        Recorded::Never => return Ok(Start::Beginning),
        Recorded::Missing => return Err("no position is recorded".to_owned()),
        Recorded::Position(position) => position,
    };
    if !events.is_of(position) {
        return match from_proto(position.stream_created) {
            Some(created) if created < events.created => Ok(Start::Beginning),
            _ => Err("the recorded position belongs to a later stream EVENTS".to_owned()),
        };
    }
    let acknowledged = position.acknowledged;
    if acknowledged > events.last {
        return Err(format!(
            "EVENTS ends at sequence {}, before the recorded position {acknowledged}",
            events.last
        ));
    }
    let is_other = |id: &str| !position.event_id.is_empty() && id != position.event_id;
    if stored_id.is_some_and(is_other) {
        return Err(format!(
            "sequence {acknowledged} of EVENTS holds another event than the recorded one"
        ));
    }
    Ok(match acknowledged {
        0 => Start::Beginning,
        _ => Start::After(acknowledged),
    })
}

/// Why the state of the consumer cannot be right. `None` if it fits the recorded position.
///
/// A consumer that another client created again is not compared: its position was chosen.
pub fn lost(
    position: &ConsumerPosition,
    state: &ConsumerState,
    events: &EventsRange,
) -> Option<String> {
    if !events.is_of(position) || from_proto(position.consumer_created) != Some(state.created) {
        return None;
    }
    let (delivered, floor) = (state.delivered, state.ack_floor);
    if delivered.stream_seq < position.acknowledged {
        return Some(format!(
            "it delivered up to sequence {}, but {} was acknowledged",
            delivered.stream_seq, position.acknowledged
        ));
    }
    if floor.stream_seq > delivered.stream_seq {
        return Some(format!(
            "sequence {} is acknowledged, but only {} was delivered",
            floor.stream_seq, delivered.stream_seq
        ));
    }
    // Events that EVENTS evicted were never delivered.
    let before = position.delivered.max(events.first.saturating_sub(1));
    let passed = delivered.stream_seq.saturating_sub(before);
    let deliveries = delivered.consumer_seq.saturating_sub(position.deliveries);
    (passed > deliveries.saturating_add(events.deleted)).then(|| {
        format!("it passed {passed} events after sequence {before} with {deliveries} deliveries")
    })
}

/// The position to record next. Its event id is not known yet. `None` if nothing changed.
///
/// Acknowledgements that the server lost in a crash stay recorded.
pub fn next(
    recorded: &Recorded,
    state: &ConsumerState,
    events: &EventsRange,
) -> Option<ConsumerPosition> {
    let now = ConsumerPosition {
        acknowledged: state.ack_floor.stream_seq,
        consumer_created: Some(to_proto(state.created)),
        delivered: state.delivered.stream_seq,
        deliveries: state.delivered.consumer_seq,
        ..events.beginning()
    };
    let Recorded::Position(before) = recorded else {
        return Some(now);
    };
    let is_same_consumer = (&before.stream_created, &before.consumer_created)
        == (&now.stream_created, &now.consumer_created);
    if !is_same_consumer {
        return Some(now);
    }
    let next = ConsumerPosition {
        acknowledged: now.acknowledged.max(before.acknowledged),
        event_id: before.event_id.clone(),
        ..now
    };
    (next != *before).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::consumers::Sequences;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A stream of the second 10, with the sequences 11 to 100.
    const EVENTS: EventsRange = EventsRange {
        created: Timestamp::constant(10, 0),
        first: 11,
        last: 100,
        deleted: 0,
    };

    /// Up to 40 of 60 deliveries are acknowledged.
    fn position() -> ConsumerPosition {
        ConsumerPosition {
            acknowledged: 40,
            event_id: "forty".to_owned(),
            consumer_created: Some(to_proto(at(20))),
            delivered: 60,
            deliveries: 65,
            ..EVENTS.beginning()
        }
    }

    fn state(floor: u64, delivered: u64, deliveries: u64) -> ConsumerState {
        ConsumerState {
            created: at(20),
            delivered: Sequences {
                stream_seq: delivered,
                consumer_seq: deliveries,
            },
            num_pending: 0,
            num_ack_pending: 0,
            ack_floor: Sequences {
                stream_seq: floor,
                consumer_seq: 0,
            },
        }
    }

    #[test]
    fn a_consumer_begins_after_the_recorded_position_only_if_the_record_fits_the_stream() {
        let of_stream = |second| ConsumerPosition {
            stream_created: Some(to_proto(at(second))),
            ..position()
        };
        let ended_at_30 = EventsRange { last: 30, ..EVENTS };
        let empty = EventsRange { last: 0, ..EVENTS };
        let recorded = Recorded::Position;
        for (recorded, events, stored_id, expected) in [
            (
                recorded(position()),
                EVENTS,
                Some("forty"),
                Some(Start::After(40)),
            ),
            (recorded(position()), EVENTS, None, Some(Start::After(40))),
            (recorded(position()), EVENTS, Some("other"), None),
            (recorded(position()), ended_at_30, None, None),
            (
                recorded(of_stream(5)),
                EVENTS,
                Some("other"),
                Some(Start::Beginning),
            ),
            (recorded(of_stream(15)), EVENTS, Some("forty"), None),
            (
                recorded(EVENTS.beginning()),
                EVENTS,
                None,
                Some(Start::Beginning),
            ),
            (Recorded::Never, EVENTS, None, Some(Start::Beginning)),
            (Recorded::Missing, EVENTS, None, None),
            (Recorded::Missing, empty, None, Some(Start::Beginning)),
        ] {
            let start = start(&recorded, &events, stored_id);
            assert_eq!(
                start.clone().ok(),
                expected,
                "{recorded:?} {stored_id:?} {start:?}"
            );
        }
    }

    #[test]
    fn a_state_is_lost_if_it_contradicts_the_record() {
        let created_again = ConsumerState {
            created: at(30),
            ..state(0, 0, 0)
        };
        for (state, is_lost) in [
            (state(40, 60, 65), false),
            (state(60, 60, 65), false),
            (state(70, 90, 95), false),
            // Redeliveries.
            (state(40, 60, 80), false),
            // The server lost the last acknowledgements in a crash.
            (state(35, 55, 60), false),
            // An empty file.
            (state(0, 0, 0), true),
            (state(40, 30, 30), true),
            (state(99, 60, 65), true),
            // Events were skipped.
            (state(40, 100, 65), true),
            (state(40, 100, 104), true),
            (created_again, false),
        ] {
            let lost = lost(&position(), &state, &EVENTS);
            assert_eq!(lost.is_some(), is_lost, "{state:?} {lost:?}");
        }
    }

    #[test]
    fn events_that_were_evicted_are_not_skipped() {
        let evicted = EventsRange {
            first: 90,
            ..EVENTS
        };
        assert_eq!(lost(&position(), &state(95, 100, 76), &evicted), None);
        assert!(lost(&position(), &state(95, 100, 75), &evicted).is_some());
    }

    #[test]
    fn a_record_never_goes_back_unless_the_consumer_was_created_again() {
        let recorded = Recorded::Position(position());
        assert_eq!(next(&recorded, &state(40, 60, 65), &EVENTS), None);
        let after_crash = next(&recorded, &state(35, 55, 60), &EVENTS).unwrap();
        assert_eq!((after_crash.acknowledged, after_crash.delivered), (40, 55));
        assert_eq!(after_crash.event_id, "forty");
        let created_again = ConsumerState {
            created: at(30),
            ..state(20, 20, 0)
        };
        let chosen = next(&recorded, &created_again, &EVENTS).unwrap();
        assert_eq!((chosen.acknowledged, chosen.event_id.as_str()), (20, ""));
    }
}
