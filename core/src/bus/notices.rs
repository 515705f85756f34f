//! What routers reported about Tidings itself, in the bucket `consumers`, and the dead letters that
//! the next notice may report.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;

use crate::bus::records::Records;
use crate::bus::search::{Budget, SearchEnd, Start};
use crate::bus::{Bus, BusError, streams};
use crate::model::notice::NoticeKind;
use crate::model::subject;
use crate::model::time::to_proto;
use crate::wire::{DeadLetter, NoticeState};

/// The most that is read for one notice.
const MOST_DEAD_LETTERS: u64 = 10_000;
const MOST_BYTES: u64 = 64 << 20;
const MOST_TIME: Duration = Duration::from_secs(20);

/// Reads and changes what was reported.
#[derive(Clone)]
pub struct ReportedNotices {
    bus: Bus,
    records: Records,
}

/// Where the stream DEAD ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadEnd {
    /// When the stream was created. A recreated stream has new sequences.
    pub created: Timestamp,
    /// The sequence of its last dead letter.
    pub last: u64,
}

impl ReportedNotices {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::CONSUMERS).await?,
        })
    }

    /// What was reported, and its revision for [`ReportedNotices::store`]. `None` if nothing is
    /// known yet.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn load(
        &self,
        kind: NoticeKind,
    ) -> Result<(Option<NoticeState>, Option<u64>), BusError> {
        self.records.load(&key(kind)).await
    }

    /// Stores what was reported, if no other router did since `revision`. Returns the new revision,
    /// or `None` if another router was first.
    ///
    /// # Errors
    /// It might not be stored.
    pub async fn store(
        &self,
        kind: NoticeKind,
        state: &NoticeState,
        revision: Option<u64>,
    ) -> Result<Option<u64>, BusError> {
        self.records.store(&key(kind), state, revision).await
    }

    /// Where DEAD ends. Also samples the server's clock.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn dead_end(&self) -> Result<DeadEnd, BusError> {
        let info = self.bus.stream_info(streams::DEAD).await;
        let info = info.map_err(BusError::Unavailable)?;
        Ok(DeadEnd {
            created: info.created,
            last: info.last_sequence(),
        })
    }

    /// Calls `see` with the dead letters after a sequence up to `end`, within bounds. Returns the
    /// sequence up to which everything was read: `end.last`, unless more follow.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn dead_letters(
        &self,
        after: u64,
        end: DeadEnd,
        mut see: impl FnMut(DeadLetter),
    ) -> Result<u64, BusError> {
        let mut budget = Budget::new(MOST_DEAD_LETTERS, MOST_BYTES, MOST_TIME);
        let (filters, start) = (
            [subject::ALL_DEAD.to_owned()],
            Start::Sequence((after + 1).max(1)),
        );
        let mut read = after;
        let searched = self
            .bus
            .search(streams::DEAD, &filters, start, &mut budget, |message| {
                if message.sequence > end.last {
                    return ControlFlow::Break(());
                }
                read = message.sequence;
                // Any client of the bus may publish there. Tools report what is no dead letter.
                if let Ok(dead_letter) = DeadLetter::decode(message.payload) {
                    see(dead_letter);
                }
                ControlFlow::Continue(())
            })
            .await?;
        Ok(match searched {
            SearchEnd::Cut => read,
            // Dead letters at the end may have been dropped by an operator.
            SearchEnd::Complete | SearchEnd::Stopped => end.last,
        })
    }
}

impl DeadEnd {
    /// The sequence up to which dead letters were read, as a state says. Of a recreated stream none
    /// was; of one that was restored from a backup all were.
    pub fn read_until(&self, state: &NoticeState) -> u64 {
        match state.dead_created == Some(to_proto(self.created)) {
            true => state.dead_read.min(self.last),
            false => 0,
        }
    }
}

fn key(kind: NoticeKind) -> String {
    format!("notice.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_dead_letter_of_a_recreated_stream_was_read() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let state = NoticeState {
            dead_created: Some(to_proto(at(1))),
            dead_read: 7,
            ..NoticeState::default()
        };
        for (created, last, expected) in [(1, 9, 7), (1, 5, 5), (2, 9, 0)] {
            let end = DeadEnd {
                created: at(created),
                last,
            };
            assert_eq!(end.read_until(&state), expected, "{created} {last}");
        }
    }
}
