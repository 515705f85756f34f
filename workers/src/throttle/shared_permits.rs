//! Seats: how many workers together call a destination whose `maxInFlight` is set. A seat is
//! leased, so that one whose holder is gone is free again by itself.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::jitter::jitter;
use tidings_core::wire::{Seat, Seats};

use super::ledger::Change;

/// How much the last call weighs in the average.
const LAST_WEIGHS: f64 = 0.2;
/// Who finds no seat comes back no sooner, in milliseconds.
const SOONEST_MS: f64 = 500.0;
/// Nor later: who comes then and finds none asks again.
const LATEST_MS: i64 = 300_000;

/// What is asked of the seats.
#[derive(Clone, Debug)]
pub enum SeatChange {
    /// A seat, if one is free.
    Take {
        /// Unique for each call.
        holder: String,
        /// So many there are.
        most: u32,
        /// For so long at most, in milliseconds.
        lasts_ms: i64,
        /// Whether this is the first try to get one.
        is_first: bool,
    },
    /// It is free again.
    Leave {
        /// Who held it.
        holder: String,
        /// What the call took, in milliseconds.
        took_ms: f64,
    },
    /// When to come back, behind all others who asked.
    ComeBack {
        /// So many seats there are.
        most: u32,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatAnswer {
    /// The seat is taken, or left.
    Done,
    /// There is none.
    Full,
    /// Then, in milliseconds since 1970.
    At(i64),
}

impl Change for SeatChange {
    type Record = Seats;
    type Answer = SeatAnswer;

    fn apply(changes: &[Self], record: &mut Seats, now: Timestamp) -> Vec<SeatAnswer> {
        let now_ms = now.as_millisecond();
        if record.taken.iter().any(|seat| seat.until_ms <= now_ms) {
            record.taken.retain(|seat| seat.until_ms > now_ms);
        }
        // Who leaves makes room for who comes at the same time.
        let leaving = |change: &&Self| matches!(change, Self::Leave { .. });
        for change in changes.iter().filter(leaving) {
            change.apply_one(record, now_ms);
        }
        changes
            .iter()
            .map(|change| {
                if leaving(&change) {
                    SeatAnswer::Done
                } else {
                    change.apply_one(record, now_ms)
                }
            })
            .collect()
    }
}

impl SeatChange {
    fn apply_one(&self, record: &mut Seats, now_ms: i64) -> SeatAnswer {
        match self {
            Self::Take { most, .. }
                if record.taken.len() >= usize::try_from(*most).unwrap_or(usize::MAX) =>
            {
                SeatAnswer::Full
            }
            Self::Take {
                holder,
                most,
                lasts_ms,
                is_first,
            } => {
                // No crowd any more: who is to come back need not do so behind those who did.
                if *is_first
                    && record.taken.len() * 2 <= usize::try_from(*most).unwrap_or(usize::MAX)
                {
                    record.next_ms = 0;
                }
                let until_ms = now_ms.saturating_add(*lasts_ms);
                record.taken.push(Seat {
                    holder: holder.clone(),
                    until_ms,
                    since_ms: now_ms,
                });
                SeatAnswer::Done
            }
            Self::Leave { holder, took_ms } => {
                record.taken.retain(|seat| seat.holder != *holder);
                let is_first = record.average_ms == 0.0;
                record.average_ms = if is_first {
                    *took_ms
                } else {
                    record.average_ms + LAST_WEIGHS * (took_ms - record.average_ms)
                };
                SeatAnswer::Done
            }
            Self::ComeBack { most } => {
                // A call that takes longer than all before it will take as long again.
                let longest = record
                    .taken
                    .iter()
                    .map(|seat| now_ms - seat.since_ms)
                    .max()
                    .unwrap_or_default();
                let each = record
                    .average_ms
                    .max(2.0 * Duration::from_millis(longest.unsigned_abs()).as_secs_f64() * 1e3);
                let apart = each / f64::from(*most);
                let soonest = now_ms.saturating_add(whole(SOONEST_MS.max(apart)));
                let latest = now_ms.saturating_add(LATEST_MS);
                record.next_ms = soonest
                    .max(record.next_ms.saturating_add(whole(apart)))
                    .min(latest);
                SeatAnswer::At(if record.next_ms < latest {
                    record.next_ms
                } else {
                    let wait = jitter(Duration::from_millis(LATEST_MS.unsigned_abs()));
                    now_ms.saturating_add(whole(wait.as_secs_f64() * 1e3))
                })
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds; what is out of bounds becomes the bound"
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

    fn take(holder: &str, most: u32) -> SeatChange {
        SeatChange::Take {
            holder: holder.into(),
            most,
            lasts_ms: 20_000,
            is_first: true,
        }
    }

    fn leave(holder: &str, took_ms: f64) -> SeatChange {
        SeatChange::Leave {
            holder: holder.into(),
            took_ms,
        }
    }

    #[test]
    fn there_are_as_many_seats_as_the_provider_says() {
        let mut record = Seats::default();
        let answers = SeatChange::apply(
            &[take("a", 2), take("b", 2), take("c", 2)],
            &mut record,
            at(0),
        );
        assert_eq!(
            answers,
            [SeatAnswer::Done, SeatAnswer::Done, SeatAnswer::Full]
        );
        assert_eq!(
            SeatChange::apply(&[take("c", 2), leave("a", 5.0)], &mut record, at(1)),
            [SeatAnswer::Done; 2]
        );
    }

    #[test]
    fn a_seat_whose_holder_is_gone_is_free_after_its_lease() {
        let mut record = Seats::default();
        SeatChange::apply(&[take("gone", 1)], &mut record, at(0));
        assert_eq!(
            SeatChange::apply(&[take("b", 1)], &mut record, at(19_999)),
            [SeatAnswer::Full]
        );
        assert_eq!(
            SeatChange::apply(&[take("b", 1)], &mut record, at(20_000)),
            [SeatAnswer::Done]
        );
        SeatChange::apply(&[leave("gone", 21_000.0)], &mut record, at(21_000));
        assert_eq!(
            record.taken.len(),
            1,
            "who comes back late leaves nobody else's seat"
        );
    }

    #[test]
    fn who_finds_no_seat_comes_back_one_after_the_other() {
        let mut record = Seats {
            average_ms: 1000.0,
            ..Seats::default()
        };
        let back = SeatChange::ComeBack { most: 2 };
        let answers = SeatChange::apply(&[back.clone(), back.clone(), back], &mut record, at(0));
        assert_eq!(
            answers,
            [
                SeatAnswer::At(500),
                SeatAnswer::At(1000),
                SeatAnswer::At(1500)
            ]
        );
    }

    #[test]
    fn while_the_first_calls_hang_the_others_come_back_later_and_later() {
        let mut record = Seats::default();
        SeatChange::apply(&[take("hangs", 1)], &mut record, at(0));
        let back = || SeatChange::ComeBack { most: 1 };
        assert_eq!(
            SeatChange::apply(&[back(), back()], &mut record, at(1000)),
            [SeatAnswer::At(3000), SeatAnswer::At(5000)]
        );
    }

    #[test]
    fn nobody_comes_back_later_than_in_five_minutes() {
        let mut record = Seats {
            average_ms: 60_000.0,
            ..Seats::default()
        };
        let back = vec![SeatChange::ComeBack { most: 1 }; 1000];
        for answer in SeatChange::apply(&back, &mut record, at(0))
            .into_iter()
            .skip(5)
        {
            assert!(
                matches!(answer, SeatAnswer::At(150_001..=300_000)),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn where_seats_are_free_again_the_crowd_is_forgotten() {
        let mut record = Seats {
            average_ms: 1000.0,
            ..Seats::default()
        };
        let back = || SeatChange::ComeBack { most: 1 };
        SeatChange::apply(&vec![back(); 100], &mut record, at(0));
        SeatChange::apply(&[take("a", 1)], &mut record, at(0));
        assert_eq!(
            SeatChange::apply(&[back()], &mut record, at(0)),
            [SeatAnswer::At(1000)]
        );
    }

    #[test]
    fn the_average_follows_the_calls() {
        let mut record = Seats::default();
        SeatChange::apply(&[leave("a", 100.0)], &mut record, at(0));
        SeatChange::apply(&[leave("b", 200.0)], &mut record, at(0));
        assert!((record.average_ms - 120.0).abs() < 1e-9);
    }
}
