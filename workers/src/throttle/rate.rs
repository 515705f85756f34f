//! Slots: the reserved send times of the deliveries under one rate limit. All workers reserve them
//! in one record.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::wire::Slots;
use tidings_rules::RateLimit;

use super::ledger::Change;

/// The most slots that a record holds. A larger limit is divided: both its count and its period.
const MOST_KEPT: u32 = 500;
/// The longest wait that a service can ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(24 * 3600);
const LONGEST_ASKED_MS: i64 = 24 * 3_600_000;

/// A change to the slots of a rate limit.
#[derive(Clone, Debug)]
pub enum SlotChange {
    /// Reserves a slot for a delivery. In one batch the delivery that was planned first gets the
    /// first slot.
    Reserve {
        /// When the delivery was planned, in milliseconds since 1970.
        planned_ms: i64,
        /// All limits that apply together.
        rates: Arc<[RateLimit]>,
    },
    /// No slot before this time, in milliseconds since 1970, because the service asked to wait.
    NotBefore(i64),
    /// The service answered, so the wait that it asked for has ended.
    Answered,
}

impl Change for SlotChange {
    type Record = Slots;
    /// The reserved slot, in milliseconds since 1970.
    type Answer = i64;

    fn apply(changes: &[Self], record: &mut Slots, now: Timestamp) -> Vec<i64> {
        let mut answers = vec![0; changes.len()];
        let mut asking = Vec::new();
        for (position, change) in changes.iter().enumerate() {
            match change {
                Self::NotBefore(time) => record.not_before_ms = record.not_before_ms.max(*time),
                Self::Answered => end_wait(record, now.as_millisecond()),
                Self::Reserve { planned_ms, rates } => asking.push((*planned_ms, position, rates)),
            }
        }
        asking.sort_by_key(|(planned_ms, position, _)| (*planned_ms, *position));
        for (_, position, rates) in asking {
            answers[position] = reserve(record, rates, now.as_millisecond());
        }
        answers
    }
}

fn end_wait(record: &mut Slots, now_ms: i64) {
    if record.not_before_ms > now_ms {
        record.not_before_ms = 0;
        record.taken_ms.retain(|slot| *slot <= now_ms);
    }
}

/// Reserves the next free slot. No period holds more slots than its limit allows. Slots in the
/// future are spread evenly over the period.
fn reserve(record: &mut Slots, rates: &[RateLimit], now_ms: i64) -> i64 {
    let rates: Vec<(usize, i64)> = rates.iter().map(divided).collect();
    let written = rates
        .iter()
        .map(|(count, per_ms)| format!("{count}/{per_ms}ms"))
        .collect::<Vec<_>>()
        .join(",");
    if record.limits != written {
        // Slots that were reserved under other limits do not delay deliveries under these.
        record.taken_ms.retain(|slot| *slot <= now_ms);
        record.limits = written;
    }
    record.not_before_ms = record
        .not_before_ms
        .min(now_ms.saturating_add(LONGEST_ASKED_MS));
    let taken = &mut record.taken_ms;
    let mut slot = now_ms
        .max(record.not_before_ms)
        .max(taken.last().copied().unwrap_or(i64::MIN));
    for (count, per_ms) in &rates {
        let earliest = taken
            .len()
            .checked_sub(*count)
            .map(|nth| taken[nth].saturating_add(*per_ms));
        slot = slot.max(earliest.unwrap_or(slot));
    }
    if slot > now_ms
        && let Some(last) = taken.last()
    {
        let apart = rates
            .iter()
            .map(|(count, per_ms)| per_ms / i64::try_from(*count).unwrap_or(i64::MAX))
            .min();
        slot = slot.max(last.saturating_add(apart.unwrap_or_default()));
    }
    taken.push(slot);
    let kept = rates
        .iter()
        .map(|(count, _)| *count)
        .max()
        .unwrap_or_default();
    taken.drain(..taken.len().saturating_sub(kept));
    slot
}

/// How long after its slot a delivery can still be sent: the shortest period of the limits. After
/// that it reserves again, so that a backlog is not sent all at once.
pub fn grace(rates: &[RateLimit]) -> Duration {
    rates.iter().map(|rate| rate.per).min().unwrap_or_default()
}

fn divided(rate: &RateLimit) -> (usize, i64) {
    let parts = rate.count.div_ceil(MOST_KEPT).max(1);
    let per_ms = i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX) / i64::from(parts);
    (
        usize::try_from(rate.count / parts)
            .unwrap_or(usize::MAX)
            .max(1),
        per_ms.max(1),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(count: u32, seconds: u64) -> RateLimit {
        RateLimit {
            count,
            per: Duration::from_secs(seconds),
        }
    }

    fn slots(record: &mut Slots, rates: &[RateLimit], count: usize, now_ms: i64) -> Vec<i64> {
        (0..count).map(|_| reserve(record, rates, now_ms)).collect()
    }

    #[test]
    fn a_burst_is_sent_at_once_and_the_rest_is_spread() {
        let mut record = Slots::default();
        assert_eq!(
            slots(&mut record, &[rate(4, 1)], 10, 1000),
            [1000, 1000, 1000, 1000, 2000, 2250, 2500, 2750, 3000, 3250]
        );
        assert_eq!(record.taken_ms.len(), 4);
        assert_eq!(
            reserve(&mut record, &[rate(4, 1)], 9000),
            9000,
            "a burst is allowed again after a pause"
        );
    }

    #[test]
    fn a_limit_of_one_per_second_gives_one_slot_per_second() {
        assert_eq!(
            slots(&mut Slots::default(), &[rate(1, 1)], 3, 500),
            [500, 1500, 2500]
        );
    }

    #[test]
    fn several_limits_apply_together() {
        let given = slots(&mut Slots::default(), &[rate(2, 1), rate(5, 60)], 7, 0);
        assert_eq!(given, [0, 0, 1000, 1500, 2000, 60_000, 60_500]);
    }

    #[test]
    fn the_oldest_delivery_gets_the_first_slot_of_a_batch() {
        let ask = |planned_ms| SlotChange::Reserve {
            planned_ms,
            rates: Arc::new([rate(1, 1)]),
        };
        let mut record = Slots::default();
        let now = Timestamp::from_millisecond(10_000).unwrap();
        assert_eq!(
            SlotChange::apply(&[ask(7), ask(5), ask(6)], &mut record, now),
            [12_000, 10_000, 11_000]
        );
    }

    #[test]
    fn a_service_that_asks_to_wait_delays_later_slots() {
        let mut record = Slots::default();
        let now = Timestamp::from_millisecond(1000).unwrap();
        SlotChange::apply(
            &[SlotChange::NotBefore(60_000), SlotChange::NotBefore(30_000)],
            &mut record,
            now,
        );
        assert_eq!(slots(&mut record, &[rate(1, 1)], 2, 1000), [60_000, 61_000]);
    }

    #[test]
    fn a_service_that_asks_for_years_is_called_after_a_day() {
        let mut record = Slots {
            not_before_ms: i64::MAX,
            ..Slots::default()
        };
        assert_eq!(
            reserve(&mut record, &[rate(1, 1)], 1000),
            1000 + LONGEST_ASKED_MS
        );
    }

    #[test]
    fn a_service_that_answers_ends_the_wait_that_it_asked_for() {
        let mut record = Slots::default();
        let now = Timestamp::from_millisecond(1000).unwrap();
        SlotChange::apply(&[SlotChange::NotBefore(60_000)], &mut record, now);
        assert_eq!(slots(&mut record, &[rate(1, 1)], 2, 1000), [60_000, 61_000]);
        SlotChange::apply(&[SlotChange::Answered], &mut record, now);
        assert_eq!(
            slots(&mut record, &[rate(1, 1)], 3, 1000),
            [1000, 2000, 3000]
        );
        SlotChange::apply(&[SlotChange::Answered], &mut record, now);
        assert_eq!(
            reserve(&mut record, &[rate(1, 1)], 1000),
            4000,
            "slots that are in the past still count"
        );
    }

    #[test]
    fn slots_of_an_old_limit_do_not_delay_deliveries_under_a_new_one() {
        let mut record = Slots::default();
        slots(&mut record, &[rate(1, 60)], 100, 0);
        assert_eq!(reserve(&mut record, &[rate(100, 1)], 1000), 1000);
    }

    #[test]
    fn large_counts_are_divided() {
        assert_eq!(divided(&rate(10_000, 60)), (500, 3000));
        assert_eq!(divided(&rate(100, 1)), (100, 1000));
    }

    proptest! {
        #[test]
        fn no_period_has_more_slots_than_a_limit_allows(
            first in (1u32..40, 1u64..5),
            second in (1u32..80, 5u64..30),
            waits in proptest::collection::vec(0i64..700, 1..200),
        ) {
            let rates = [rate(first.0, first.1), rate(second.0, second.1)];
            let (mut record, mut now, mut given) = (Slots::default(), 0, Vec::new());
            for wait in waits {
                now += wait;
                let slot = reserve(&mut record, &rates, now);
                prop_assert!(slot >= now && given.last().is_none_or(|last| *last <= slot));
                given.push(slot);
            }
            for rate in &rates {
                let count = usize::try_from(rate.count).unwrap();
                let per = i64::try_from(rate.per.as_millis()).unwrap();
                prop_assert!(given.windows(count + 1).all(|slots| slots[count] - slots[0] >= per));
            }
        }
    }
}
