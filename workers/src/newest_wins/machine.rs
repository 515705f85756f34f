//! One delivery's way to have the newest state of its key at the service, as a state machine
//! without I/O.
//!
//! ```text
//!  load ─► decide ─► store the lease ─► prepare ─► (read) ─► write ─► store that it is posted ─► end
//!            ▲ └► end, wait                          ▲                  │ the record has moved
//!            └── it moved                            └── take the lease ◄┘ again
//! ```
//!
//! [`Keeping::next`] is told how the last action ended, and tells the next. Whoever drives it does
//! one action at a time: `keep.rs` on the bus and with the service, the simulation with crashes
//! between any two of them.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::wire::{Desired, Record};
use tidings_core::{Failure, FailureKind, Outcome, Reason, Timestamp as ProtoTimestamp};

use crate::attempt::Ended;
use crate::newest_wins::record::{self, Lease, Step, step};
use crate::notifier::contract::{RemoteState, Sent};

/// A write that was overtaken is followed by another, this often at most; then the delivery is
/// tried again later.
const MOST_ROUNDS: u32 = 8;
/// Who waits for a lease looks again this soon: mostly its holder has told the noted state long
/// before the lease ends.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What came of keeping a state.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// It ended well; `other` names the delivery whose state was posted, where it is not the one at
    /// hand.
    Ended {
        /// How the delivery at hand ended.
        ended: Ended,
        /// The delivery whose state was posted instead.
        other: Option<String>,
    },
    /// Somebody else is writing: look again after this long.
    Wait(Duration),
    /// The service or the bus failed. The state counts as not posted.
    Failed {
        /// How.
        failure: Failure,
        /// See [`Kept::is_noted`].
        is_noted: bool,
        /// When the newest state that is known was planned: trying again is for it.
        planned_at: Option<ProtoTimestamp>,
    },
}

impl Kept {
    /// Whether the state is in the record: then any delivery of the key can be tried again in this
    /// one's place. Else it is nowhere but in the delivery.
    pub fn is_noted(&self) -> bool {
        !matches!(
            self,
            Self::Failed {
                is_noted: false,
                ..
            }
        )
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Load the record of the key.
    Load,
    /// Store this record, if it still has this revision.
    Store(Box<Record>, Option<u64>),
    /// Have the notifier ask what it must know beforehand.
    Prepare,
    /// Ask the service whether it holds this state.
    Read(Vec<u8>),
    /// Tell the service this state, under its own id where one is known.
    Write(Vec<u8>, Option<String>),
    /// Nothing: this came of it.
    End(Kept),
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The record, where there is one, and its revision.
    Loaded(Option<Box<Record>>, Option<u64>),
    /// The new revision; nothing where the record has moved.
    Stored(Option<u64>),
    /// The service can be told.
    Prepared,
    /// What the service holds.
    RemoteState(RemoteState),
    /// The service was told.
    Sent(Sent),
    /// It failed.
    Failed(Failure),
}

/// The way of one delivery.
pub struct Keeping {
    mine: Desired,
    lease: Lease,
    /// Without the service's id of what is there, a write makes a second one.
    needs_handle: bool,
    phase: Phase,
    /// As last loaded or stored.
    record: Record,
    revision: Option<u64>,
    /// The newest state that was seen. It is merged into what is loaded: the bucket may get lost
    /// meanwhile.
    newest: Desired,
    /// What the service was last asked about or told.
    told: Desired,
    is_noted: bool,
    is_read: bool,
    handle: Option<String>,
    /// A write of ours may be at the service, and no lease of ours is stored since.
    is_sent: bool,
    rounds: u32,
}

/// What the answer that is waited for will mean.
#[derive(Debug)]
enum Phase {
    Deciding,
    /// A newer state or a doubt is stored; then this is the end. If the record moves, the way goes
    /// on from there.
    Noting(Kept, From),
    /// The same for the lease.
    Leasing(From),
    Preparing,
    Reading,
    Writing,
    Posting(Ended),
    /// The record moved before it could say that the state is posted.
    Checking(Ended),
    Releasing(Failure),
    /// The record is stored without our lease, or with our doubt.
    Leaving(Failure),
}

/// Before a write of ours, or after one that ended so.
type From = Option<Ended>;

const SAME: &str = "the service has this state already";
const NEWER: &str = "a newer state is posted";

// === impl Keeping ===

impl Keeping {
    /// The way of the delivery that brings `mine`. It begins with [`Action::Load`].
    pub fn new(mine: Desired, lease: Lease, needs_handle: bool) -> Self {
        Self {
            newest: mine.clone(),
            mine,
            lease,
            needs_handle,
            phase: Phase::Deciding,
            record: Record::default(),
            revision: None,
            told: Desired::default(),
            is_noted: false,
            is_read: false,
            handle: None,
            is_sent: false,
            rounds: 0,
        }
    }

    /// What to do next, now that the last action has ended so. `now` is the server's time.
    ///
    /// # Panics
    /// The answer is not one to the last action.
    pub fn next(&mut self, answer: Answer, now: Timestamp) -> Action {
        let phase = std::mem::replace(&mut self.phase, Phase::Deciding);
        self.is_noted |= matches!(answer, Answer::Stored(Some(_)));
        match (phase, answer) {
            (Phase::Deciding, Answer::Loaded(record, revision)) => {
                self.decide(record.as_deref(), revision, now)
            }
            (Phase::Noting(end, _), Answer::Stored(Some(_))) => Action::End(end),
            (Phase::Noting(_, from) | Phase::Leasing(from), Answer::Stored(None)) => {
                self.load(from.map_or(Phase::Deciding, Phase::Checking))
            }
            (Phase::Leasing(_), Answer::Stored(Some(revision))) => self.prepare(revision),
            (Phase::Preparing, Answer::Prepared) => self.read_or_write(now),
            (Phase::Reading, Answer::RemoteState(held)) => self.has_read(held, now),
            (Phase::Writing, Answer::Sent(sent)) => self.has_written(sent),
            (Phase::Posting(ended), Answer::Stored(Some(_))) => self.end(ended),
            (Phase::Posting(ended), Answer::Stored(None)) => self.load(Phase::Checking(ended)),
            (Phase::Checking(ended), Answer::Loaded(record, revision)) => {
                self.check(ended, record, revision, now)
            }
            (Phase::Releasing(failure), Answer::Loaded(record, revision)) => {
                self.release(failure, record, revision, now)
            }
            (Phase::Leaving(failure), Answer::Stored(Some(_))) => self.failed(failure),
            (Phase::Leaving(failure), Answer::Stored(None)) => self.load(Phase::Releasing(failure)),
            (Phase::Preparing | Phase::Reading | Phase::Writing, Answer::Failed(failure)) => {
                self.load(Phase::Releasing(failure))
            }
            // Where the bus is away, the lease runs out by itself.
            (Phase::Releasing(first) | Phase::Leaving(first), Answer::Failed(_)) => {
                self.failed(first)
            }
            (_, Answer::Failed(failure)) => self.failed(failure),
            (phase, answer) => unreachable!("{answer:?} is no answer in the phase {phase:?}"),
        }
    }

    fn decide(&mut self, record: Option<&Record>, revision: Option<u64>, now: Timestamp) -> Action {
        let (end, news) = match step(record, &self.newest, &self.mine, &self.lease, now) {
            Step::Superseded => (ended(Outcome::Superseded, NEWER), None),
            Step::Duplicate(news) => (ended(Outcome::Duplicate, SAME), news),
            Step::Wait(wait, news) => (Kept::Wait(wait.min(LOOK_AGAIN_AFTER)), news),
            Step::Write(leased) => {
                self.take(leased, revision);
                return self.store(self.record.clone(), Phase::Leasing(None));
            }
        };
        self.revision = revision;
        match news {
            None => Action::End(end),
            Some(news) => self.store(news, Phase::Noting(end, None)),
        }
    }

    /// Only now: what is desired is noted even if the service can't be asked.
    fn prepare(&mut self, revision: u64) -> Action {
        self.revision = Some(revision);
        // Whoever wrote in between had a lease, which is over: what they wrote was after our last
        // write.
        self.is_sent = false;
        self.phase = Phase::Preparing;
        Action::Prepare
    }

    fn read_or_write(&mut self, now: Timestamp) -> Action {
        if !record::allows_a_write(&self.record, &self.lease, now) {
            return self.load(Phase::Deciding);
        }
        self.told = self.record.desired.clone().unwrap_or_default();
        let knows_enough =
            self.record.read && !(self.needs_handle && self.record.handle.is_empty());
        if !knows_enough && !self.is_read {
            self.phase = Phase::Reading;
            return Action::Read(self.told.state.clone());
        }
        self.is_sent = true;
        self.phase = Phase::Writing;
        let handle = Some(self.record.handle.clone()).filter(|handle| !handle.is_empty());
        Action::Write(self.told.state.clone(), handle)
    }

    fn has_read(&mut self, held: RemoteState, now: Timestamp) -> Action {
        self.is_read = true;
        match held {
            RemoteState::Same { handle } => {
                self.learn(handle);
                self.note(Ended::new(Outcome::Duplicate, SAME))
            }
            RemoteState::Other { handle } => {
                self.learn(handle);
                self.read_or_write(now)
            }
            RemoteState::Unknown => self.read_or_write(now),
        }
    }

    fn has_written(&mut self, sent: Sent) -> Action {
        if let Sent::Accepted { handle, .. } = &sent {
            self.learn(handle.clone());
        }
        self.is_read = true;
        self.note(Ended::from(sent))
    }

    /// Stores that the service holds the state, unless the record says that this is no longer so or
    /// no longer enough.
    fn note(&mut self, ended: Ended) -> Action {
        match record::posted(&self.record, &self.told, &self.lease) {
            Some(posted) => self.store(posted, Phase::Posting(ended)),
            None => self.load(Phase::Checking(ended)),
        }
    }

    /// Others may have noted the same state meanwhile: that moves the record, and changes nothing.
    /// Else the present state is written, also where ours is known to have come last: a stale
    /// answer proves nothing.
    fn check(
        &mut self,
        ended: Ended,
        record: Option<Box<Record>>,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Action {
        self.take(record.map(|record| *record).unwrap_or_default(), revision);
        if let Some(posted) = record::posted(&self.record, &self.told, &self.lease) {
            return self.store(posted, Phase::Posting(ended));
        }
        if record::is_posted(&self.record, &self.told.state) && self.is_wanted() {
            return self.end(ended);
        }
        if !self.is_sent {
            return self.load(Phase::Deciding);
        }
        self.rounds += 1;
        if self.rounds >= MOST_ROUNDS {
            let failure = Failure::transient(
                Reason::RateLimited,
                "the state changes faster than the service answers",
            );
            return self.load(Phase::Releasing(failure));
        }
        let Some(wait) = record::foreign_lease(&self.record, &self.lease, now) else {
            self.record = record::leased(self.record.clone(), &self.lease, now);
            return self.store(self.record.clone(), Phase::Leasing(Some(ended)));
        };
        let wait = Kept::Wait(wait.min(LOOK_AGAIN_AFTER));
        // Which of us came last does not matter where both say the same.
        if self.is_wanted() {
            Action::End(wait)
        } else {
            self.doubt(Phase::Noting(wait, Some(ended)))
        }
    }

    /// Lets others write at once. Where a write of ours may have come after theirs, theirs counts
    /// no longer.
    fn release(
        &mut self,
        failure: Failure,
        record: Option<Box<Record>>,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Action {
        self.take(record.map(|record| *record).unwrap_or_default(), revision);
        if self.record.lease_holder == self.lease.holder {
            return self.store(record::freed(self.record.clone()), Phase::Leaving(failure));
        }
        let may_be_there = self.is_sent && matches!(failure.kind, FailureKind::Transient { .. });
        let others_count = self.record.posted.is_some()
            || record::foreign_lease(&self.record, &self.lease, now).is_some();
        if may_be_there && others_count && !self.is_wanted() {
            return self.doubt(Phase::Leaving(failure));
        }
        self.failed(failure)
    }

    /// Whether what the service was told is still what is desired.
    fn is_wanted(&self) -> bool {
        self.record
            .desired
            .as_ref()
            .is_some_and(|desired| desired.state == self.told.state)
    }

    fn take(&mut self, mut record: Record, revision: Option<u64>) {
        record::merge(&mut record, &self.newest);
        self.newest = record.desired.clone().unwrap_or_default();
        (self.record, self.revision) = (record, revision);
        self.add_what_was_learnt();
    }

    fn learn(&mut self, handle: Option<String>) {
        self.handle = handle.or(self.handle.take());
        self.add_what_was_learnt();
    }

    fn add_what_was_learnt(&mut self) {
        self.record.read |= self.is_read;
        let is_ours =
            self.record.lease_holder == self.lease.holder || self.record.handle.is_empty();
        if let Some(handle) = self.handle.as_ref().filter(|_| is_ours) {
            self.record.handle.clone_from(handle);
        }
    }

    fn load(&mut self, phase: Phase) -> Action {
        self.phase = phase;
        Action::Load
    }

    fn store(&mut self, record: Record, phase: Phase) -> Action {
        self.phase = phase;
        Action::Store(Box::new(record), self.revision)
    }

    fn doubt(&mut self, phase: Phase) -> Action {
        self.store(record::doubted(self.record.clone()), phase)
    }

    fn end(&self, ended: Ended) -> Action {
        let other =
            (self.told.delivery_id != self.mine.delivery_id).then(|| self.told.delivery_id.clone());
        let ended = if other.is_some() {
            Ended::new(Outcome::Superseded, NEWER)
        } else {
            ended
        };
        Action::End(Kept::Ended { ended, other })
    }

    /// When the newest state that is known was planned.
    pub fn planned_at(&self) -> Option<ProtoTimestamp> {
        self.newest.planned_at
    }

    fn failed(&self, failure: Failure) -> Action {
        Action::End(Kept::Failed {
            failure,
            is_noted: self.is_noted,
            planned_at: self.newest.planned_at,
        })
    }
}

fn ended(outcome: Outcome, why: &str) -> Kept {
    Kept::Ended {
        ended: Ended::new(outcome, why),
        other: None,
    }
}
