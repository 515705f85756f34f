//! Shared permits: how many calls all workers together make to a destination whose `maxInFlight` is
//! set. A permit ends with its process (`process_lease`), so that one whose worker was killed
//! becomes free again.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::jitter::jitter;
use tidings_core::model::process_lease;
use tidings_core::wire::{Seat, Seats};

use super::ledger::Change;

/// The weight of the last call in the moving average.
const LAST_CALL_WEIGHT: f64 = 0.2;
/// A delivery without a permit is retried after at least this time, in milliseconds.
const SOONEST_MS: f64 = 500.0;
/// And after at most this time.
const LATEST_MS: i64 = 300_000;
/// One delivery looks this often whether the holders still live, however late its turn is.
const LOOK_EVERY_MS: i64 = 5_000;

/// A change to the permits of a destination.
#[derive(Clone, Debug)]
pub enum PermitChange {
    /// Takes a permit, if one is free.
    Take {
        /// Unique for each call.
        holder: String,
        /// How many permits there are.
        most: u32,
        /// The id of this process.
        process: String,
        /// The longest that a call can take, in milliseconds.
        lasts_ms: i64,
        /// Whether this is the call's first try.
        is_first: bool,
    },
    /// Gives a permit back.
    Release {
        /// The holder that took it.
        holder: String,
        /// How long the call took, in milliseconds.
        took_ms: f64,
    },
    /// Takes away the permits of these holders, whose processes died.
    Free(Vec<String>),
    /// Asks when to retry: after all deliveries that asked before.
    RetryAt {
        /// How many permits there are.
        most: u32,
    },
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq)]
pub enum PermitAnswer {
    /// The permit is taken, or given back.
    Done,
    /// These permits are taken, and no other is free.
    Full(Vec<Seat>),
    /// Retry at this time, in milliseconds since 1970.
    At(i64),
}

impl Change for PermitChange {
    type Record = Seats;
    type Answer = PermitAnswer;

    fn apply(changes: &[Self], record: &mut Seats, now: Timestamp) -> Vec<PermitAnswer> {
        let now_ms = now.as_millisecond();
        record.taken.retain(|permit| permit.until_ms > now_ms);
        // Releases go first, so that a permit can be taken in the same batch.
        for change in changes {
            match change {
                Self::Release { holder, took_ms } => release(record, holder, *took_ms),
                Self::Free(holders) => {
                    record
                        .taken
                        .retain(|permit| !holders.contains(&permit.holder));
                }
                Self::Take { .. } | Self::RetryAt { .. } => {}
            }
        }
        changes
            .iter()
            .map(|change| change.answer(record, now))
            .collect()
    }
}

impl PermitChange {
    fn answer(&self, record: &mut Seats, now: Timestamp) -> PermitAnswer {
        let now_ms = now.as_millisecond();
        match self {
            Self::Take {
                holder,
                most,
                process,
                lasts_ms,
                is_first,
            } => {
                let most = usize::try_from(*most).unwrap_or(usize::MAX);
                if record.taken.len() >= most {
                    return PermitAnswer::Full(record.taken.clone());
                }
                // Half of the permits are free: later deliveries need not retry after earlier ones.
                if *is_first && record.taken.len() * 2 <= most {
                    record.next_ms = 0;
                }
                record.taken.push(Seat {
                    holder: holder.clone(),
                    until_ms: now_ms.saturating_add(*lasts_ms),
                    since_ms: now_ms,
                    process: Some(process_lease::holder(process, now)),
                });
                PermitAnswer::Done
            }
            Self::Release { .. } | Self::Free(_) => PermitAnswer::Done,
            Self::RetryAt { most } => PermitAnswer::At(retry_at(record, *most, now_ms)),
        }
    }
}

fn release(record: &mut Seats, holder: &str, took_ms: f64) {
    record.taken.retain(|permit| permit.holder != holder);
    record.average_ms = match record.average_ms == 0.0 {
        true => took_ms,
        false => record.average_ms + LAST_CALL_WEIGHT * (took_ms - record.average_ms),
    };
}

/// Deliveries are retried one after the other, as fast as calls end.
fn retry_at(record: &mut Seats, most: u32, now_ms: i64) -> i64 {
    // A call that already takes longer than the average is expected to take as long again.
    let longest = record
        .taken
        .iter()
        .map(|permit| now_ms - permit.since_ms)
        .max();
    let longest = Duration::from_millis(longest.unwrap_or_default().unsigned_abs());
    let call_ms = record.average_ms.max(2.0 * longest.as_secs_f64() * 1e3);
    let apart = call_ms / f64::from(most);
    let soonest = now_ms.saturating_add(whole(SOONEST_MS.max(apart)));
    let latest = now_ms.saturating_add(LATEST_MS);
    let turn = soonest
        .max(record.next_ms.saturating_add(whole(apart)))
        .min(latest);
    let look_ms = now_ms.saturating_add(LOOK_EVERY_MS);
    if record.look_ms <= now_ms && look_ms < turn {
        record.look_ms = look_ms;
        return look_ms;
    }
    record.next_ms = turn;
    match record.next_ms < latest {
        true => record.next_ms,
        false => {
            let wait = jitter(Duration::from_millis(LATEST_MS.unsigned_abs()));
            now_ms.saturating_add(whole(wait.as_secs_f64() * 1e3))
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds; a value out of range becomes the bound"
)]
fn whole(milliseconds: f64) -> i64 {
    milliseconds.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    fn take(holder: &str, most: u32) -> PermitChange {
        PermitChange::Take {
            holder: holder.into(),
            most,
            process: "p".into(),
            lasts_ms: 20_000,
            is_first: true,
        }
    }

    fn release(holder: &str, took_ms: f64) -> PermitChange {
        PermitChange::Release {
            holder: holder.into(),
            took_ms,
        }
    }

    #[test]
    fn there_are_as_many_permits_as_max_in_flight() {
        let mut record = Seats::default();
        let answers = PermitChange::apply(
            &[take("a", 2), take("b", 2), take("c", 2)],
            &mut record,
            at(0),
        );
        let taken = record.taken.clone();
        assert_eq!(
            answers,
            [
                PermitAnswer::Done,
                PermitAnswer::Done,
                PermitAnswer::Full(taken)
            ]
        );
        assert_eq!(
            PermitChange::apply(&[take("c", 2), release("a", 5.0)], &mut record, at(1)),
            [PermitAnswer::Done, PermitAnswer::Done]
        );
    }

    #[test]
    fn a_permit_of_a_dead_process_is_taken_away() {
        let mut record = Seats::default();
        PermitChange::apply(&[take("gone", 2), take("here", 2)], &mut record, at(0));
        let full = PermitChange::apply(&[take("b", 2)], &mut record, at(5000));
        let [PermitAnswer::Full(taken)] = full.as_slice() else {
            panic!("{full:?}")
        };
        let process = taken[0].process.clone().expect("the seat has a process");
        assert_eq!((process.process.as_str(), process.until_ms), ("p", 5000));

        let free = PermitChange::Free(vec!["gone".into()]);
        assert_eq!(
            PermitChange::apply(&[take("b", 2), free], &mut record, at(5000)),
            [PermitAnswer::Done, PermitAnswer::Done]
        );
        let holders: Vec<_> = record
            .taken
            .iter()
            .map(|seat| seat.holder.as_str())
            .collect();
        assert_eq!(holders, ["here", "b"]);
    }

    #[test]
    fn a_permit_ends_when_no_call_can_take_longer() {
        let mut record = Seats::default();
        PermitChange::apply(&[take("gone", 1)], &mut record, at(0));
        assert!(matches!(
            PermitChange::apply(&[take("b", 1)], &mut record, at(19_999)).as_slice(),
            [PermitAnswer::Full(_)]
        ));
        assert_eq!(
            PermitChange::apply(&[take("b", 1)], &mut record, at(20_000)),
            [PermitAnswer::Done]
        );
        PermitChange::apply(&[release("gone", 21_000.0)], &mut record, at(21_000));
        assert_eq!(
            record.taken.len(),
            1,
            "a late release frees no other call's permit"
        );
    }

    #[test]
    fn deliveries_without_a_permit_are_retried_one_after_the_other() {
        let mut record = Seats {
            average_ms: 1000.0,
            ..Seats::default()
        };
        let retry = PermitChange::RetryAt { most: 2 };
        let retries = [retry.clone(), retry.clone(), retry];
        let answers = PermitChange::apply(&retries, &mut record, at(0));
        assert_eq!(
            answers,
            [
                PermitAnswer::At(500),
                PermitAnswer::At(1000),
                PermitAnswer::At(1500)
            ]
        );
    }

    #[test]
    fn while_a_call_hangs_deliveries_are_retried_later_and_later() {
        let mut record = Seats::default();
        PermitChange::apply(&[take("hangs", 1)], &mut record, at(0));
        let retry = || PermitChange::RetryAt { most: 1 };
        assert_eq!(
            PermitChange::apply(&[retry(), retry()], &mut record, at(1000)),
            [PermitAnswer::At(3000), PermitAnswer::At(5000)]
        );
    }

    #[test]
    fn one_delivery_looks_every_five_seconds_whether_the_holders_live() {
        let mut record = Seats {
            average_ms: 60_000.0,
            ..Seats::default()
        };
        let mut retry = |now_ms| {
            let retry = PermitChange::RetryAt { most: 1 };
            PermitChange::apply(&[retry], &mut record, at(now_ms)).remove(0)
        };
        for (now_ms, at_ms) in [
            (0, 5_000),
            (0, 60_000),
            (1_000, 120_000),
            (5_000, 10_000),
            (6_000, 180_000),
            (10_000, 15_000),
        ] {
            assert_eq!(retry(now_ms), PermitAnswer::At(at_ms), "at {now_ms} ms");
        }
    }

    #[test]
    fn deliveries_are_retried_within_five_minutes() {
        let mut record = Seats {
            average_ms: 60_000.0,
            ..Seats::default()
        };
        let retries = vec![PermitChange::RetryAt { most: 1 }; 1000];
        for answer in PermitChange::apply(&retries, &mut record, at(0))
            .into_iter()
            .skip(5)
        {
            assert!(
                matches!(answer, PermitAnswer::At(150_001..=300_000)),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn retry_times_start_over_when_half_of_the_permits_are_free() {
        let mut record = Seats {
            average_ms: 1000.0,
            ..Seats::default()
        };
        let retry = || PermitChange::RetryAt { most: 1 };
        PermitChange::apply(&vec![retry(); 100], &mut record, at(0));
        PermitChange::apply(&[take("a", 1)], &mut record, at(0));
        assert_eq!(
            PermitChange::apply(&[retry()], &mut record, at(0)),
            [PermitAnswer::At(1000)]
        );
    }

    #[test]
    fn the_average_follows_the_durations_of_calls() {
        let mut record = Seats::default();
        PermitChange::apply(&[release("a", 100.0)], &mut record, at(0));
        PermitChange::apply(&[release("b", 200.0)], &mut record, at(0));
        assert!((record.average_ms - 120.0).abs() < 1e-9);
    }
}
