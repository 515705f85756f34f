//! Which events a tap prints: from where, until when, and whether it waits for new ones.

use async_nats::jetstream::consumer::DeliverPolicy;
use jiff::Timestamp;
use tidings_core::model::time::to_offset;

/// The time span of a tap. Times are those at which the server stored the events.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The time of the first event, if given.
    pub since: Option<Timestamp>,
    /// The time before which the last event was stored, if given.
    pub until: Option<Timestamp>,
    /// Whether new events are printed, too.
    pub follows: bool,
}

impl Span {
    /// Whether events that will be stored can belong to the span.
    pub fn awaits_events(&self, now: Timestamp) -> bool {
        self.follows && self.until.is_none_or(|until| now < until)
    }

    /// Where reading begins, in a stream with this last sequence.
    pub fn start(&self, last_sequence: u64, now: Timestamp) -> DeliverPolicy {
        match self.since {
            Some(since) => DeliverPolicy::ByStartTime {
                start_time: to_offset(since),
            },
            None if self.awaits_events(now) => after(last_sequence),
            None => DeliverPolicy::All,
        }
    }

    /// Whether an event that was stored at this time is too late.
    pub fn ends_before(&self, stored_at: Timestamp) -> bool {
        self.until.is_some_and(|until| stored_at >= until)
    }
}

/// Begins with the event after this sequence.
pub fn after(sequence: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence {
        start_sequence: sequence + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000, 0);
    const PAST: Option<Timestamp> = Some(Timestamp::constant(900, 0));
    const FUTURE: Option<Timestamp> = Some(Timestamp::constant(1_100, 0));

    #[test]
    fn without_since_only_a_tap_that_waits_begins_with_new_events() {
        for (until, follows, waits) in [
            (None, true, true),
            (FUTURE, true, true),
            (PAST, true, false),
            (None, false, false),
            (FUTURE, false, false),
        ] {
            let span = Span {
                since: None,
                until,
                follows,
            };
            assert_eq!(span.awaits_events(NOW), waits, "{span:?}");
            let expected = if waits { after(7) } else { DeliverPolicy::All };
            assert_eq!(span.start(7, NOW), expected, "{span:?}");
        }
    }

    #[test]
    fn the_span_ends_before_until() {
        let span = Span {
            since: PAST,
            until: FUTURE,
            follows: true,
        };
        assert!(!span.ends_before(NOW));
        assert!(span.ends_before(FUTURE.unwrap()));
        let start_time = time::OffsetDateTime::from_unix_timestamp(900).unwrap();
        let expected = DeliverPolicy::ByStartTime { start_time };
        assert_eq!(span.start(7, NOW), expected);
    }
}
