//! The state machine with which a delivery writes the newest state of a key. It does no I/O.
//!
//! ```text
//!  load ─► decide ─► store the lease ─► prepare ─► (read) ─► write ─► store as posted ─► end
//!            ▲ └► end, wait                                    ▲        │ the record changed
//!            └── the record changed                            └────────┘ store the lease again
//! ```
//!
//! [`Machine::next`] takes the result of the last action and returns the next action. Its driver
//! carries out one action at a time: `newest_wins.rs` on the bus and with the service, the
//! simulation with crashes between the actions.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::wire::{Desired, Record};
use tidings_core::{Failure, FailureKind, Outcome, ProtoTimestamp, Reason};

use crate::attempt::ended::{AttemptResult, Ended, Refusal, SAME_STATE};
use crate::newest_wins::record::{self, StateDecision, WriteLease};
use crate::notifier::contract::{RemoteState, Sent};

/// How often one attempt writes because the state changed during its last write. After that, the
/// delivery is retried later.
const MOST_WRITES: u32 = 8;
/// A delivery that waits for another's lease is retried after at most this time. The holder has
/// usually written by then.
const MOST_LEASE_WAIT: Duration = Duration::from_secs(2);
/// The detail of a superseded delivery.
const NEWER_STATE: &str = "a newer state is posted";

/// What the driver does next.
#[derive(Clone, Debug)]
pub enum Action {
    /// Load the record of the key.
    Load,
    /// Store this record, if it still has this revision.
    Store(Box<Record>, Option<u64>),
    /// Ask for admission, then let the notifier prepare.
    Prepare,
    /// Ask the service whether it holds this state.
    Read(Vec<u8>),
    /// Write this state to the service, with the service's own id where it is known.
    Write(Vec<u8>, Option<String>),
    /// Stop: another delivery holds the lease. The state is recorded; retry after this long.
    Wait(Duration),
    /// Stop with this result.
    End(AttemptResult),
}

/// The result of an action.
#[derive(Clone, Debug)]
pub enum ActionResult {
    /// The record, if there is one, and its revision.
    Loaded(Option<Box<Record>>, Option<u64>),
    /// The new revision; `None` if the record has changed since it was loaded.
    Stored(Option<u64>),
    /// The service can be called.
    Prepared,
    /// What the service holds.
    Read(RemoteState),
    /// The service accepted the state.
    Written(Sent),
    /// The action failed.
    Failed(Failure),
    /// The throttle did not admit the call.
    NotAdmitted(Refusal),
}

/// The progress of one delivery.
pub struct Machine {
    /// The state that the delivery carries.
    mine: Desired,
    lease: WriteLease,
    /// Whether a write without the service's id creates a second entry there.
    needs_handle: bool,
    phase: Phase,
    /// As last loaded or stored.
    record: Record,
    revision: Option<u64>,
    /// The newest state that was seen. It is merged into every loaded record, because the bucket
    /// may be deleted meanwhile.
    newest: Desired,
    /// The state that was last read or written.
    current: Desired,
    is_recorded: bool,
    is_read: bool,
    handle: Option<String>,
    /// Whether a write may have reached the service since the last lease was stored.
    is_sent: bool,
    writes: u32,
}

/// What the machine does with the next result.
#[derive(Debug)]
enum Phase {
    Deciding,
    /// A newer state or a doubt is being stored; this action follows. If the record has changed,
    /// decide again.
    Recording(Box<Action>, AfterWrite),
    Leasing(AfterWrite),
    Preparing,
    Reading,
    Writing,
    /// The record is being stored with the state as posted.
    Posting(Ended),
    /// The record changed before it could be stored with the state as posted.
    Rechecking(Ended),
    /// The record is being loaded to release the lease.
    Releasing(AttemptResult),
    /// The record is being stored without the lease, or with a doubt.
    Leaving(AttemptResult),
}

/// The end of the previous write, if there was one.
type AfterWrite = Option<Ended>;

// === impl Machine ===

impl Machine {
    /// The machine of the delivery with the state `mine`. Its first action is [`Action::Load`].
    pub fn new(mine: Desired, lease: WriteLease, needs_handle: bool) -> Self {
        Self {
            newest: mine.clone(),
            mine,
            lease,
            needs_handle,
            phase: Phase::Deciding,
            record: Record::default(),
            revision: None,
            current: Desired::default(),
            is_recorded: false,
            is_read: false,
            handle: None,
            is_sent: false,
            writes: 0,
        }
    }

    /// The next action. `now` is the server's time.
    ///
    /// # Panics
    /// The result does not belong to the last action.
    pub fn next(&mut self, result: ActionResult, now: Timestamp) -> Action {
        use ActionResult::{Failed, Loaded, NotAdmitted, Prepared, Read, Stored, Written};
        let phase = std::mem::replace(&mut self.phase, Phase::Deciding);
        self.is_recorded |= matches!(result, Stored(Some(_)));
        match (phase, result) {
            (Phase::Deciding, Loaded(record, revision)) => {
                self.decide(record.as_deref(), revision, now)
            }
            (Phase::Recording(then, _), Stored(Some(_))) => *then,
            (Phase::Recording(_, after) | Phase::Leasing(after), Stored(None)) => {
                self.load(after.map_or(Phase::Deciding, Phase::Rechecking))
            }
            (Phase::Leasing(_), Stored(Some(revision))) => self.prepare(revision),
            (Phase::Preparing, Prepared) => self.read_or_write(now),
            (Phase::Preparing, NotAdmitted(why)) => self.load(Phase::Releasing(why.into())),
            (Phase::Reading, Read(held)) => self.after_read(held, now),
            (Phase::Writing, Written(sent)) => self.after_write(sent),
            (Phase::Posting(ended), Stored(Some(_))) => self.end(ended),
            (Phase::Posting(ended), Stored(None)) => self.load(Phase::Rechecking(ended)),
            (Phase::Rechecking(ended), Loaded(record, revision)) => {
                self.recheck(ended, record, revision, now)
            }
            (Phase::Releasing(result), Loaded(record, revision)) => {
                self.release(result, record, revision, now)
            }
            (Phase::Leaving(result), Stored(Some(_))) => Action::End(result),
            (Phase::Leaving(result), Stored(None)) => self.load(Phase::Releasing(result)),
            (Phase::Preparing | Phase::Reading | Phase::Writing, Failed(failure)) => {
                self.load(Phase::Releasing(self.failed(failure)))
            }
            // If the bus is unavailable, the lease expires.
            (Phase::Releasing(result) | Phase::Leaving(result), Failed(_)) => Action::End(result),
            (_, Failed(failure)) => Action::End(self.failed(failure)),
            (phase, result) => unreachable!("{result:?} is not a result of the phase {phase:?}"),
        }
    }

    /// When the newest known state was planned.
    pub fn planned_at(&self) -> Option<ProtoTimestamp> {
        self.newest.planned_at
    }

    fn decide(&mut self, record: Option<&Record>, revision: Option<u64>, now: Timestamp) -> Action {
        let ended = |outcome, why| Action::End(Ended::new(outcome, why).into());
        let decision = record::decide(record, &self.newest, &self.mine, &self.lease, now);
        let (then, changed) = match decision {
            StateDecision::Superseded => (ended(Outcome::Superseded, NEWER_STATE), None),
            StateDecision::Duplicate(changed) => (ended(Outcome::Duplicate, SAME_STATE), changed),
            StateDecision::Wait(wait, changed) => {
                (Action::Wait(wait.min(MOST_LEASE_WAIT)), changed)
            }
            StateDecision::Write(leased) => {
                self.take(leased, revision);
                return self.store(self.record.clone(), Phase::Leasing(None));
            }
        };
        self.revision = revision;
        match changed {
            None => then,
            Some(record) => self.store(record, Phase::Recording(Box::new(then), None)),
        }
    }

    /// Runs after the lease is stored, so that the desired state is recorded even if the service
    /// cannot be called.
    fn prepare(&mut self, revision: u64) -> Action {
        self.revision = Some(revision);
        // Any writer in between held the lease after us, so its write came after our last one.
        self.is_sent = false;
        self.phase = Phase::Preparing;
        Action::Prepare
    }

    fn read_or_write(&mut self, now: Timestamp) -> Action {
        if !record::allows_a_write(&self.record, &self.lease, now) {
            return self.load(Phase::Deciding);
        }
        self.current = self.record.desired.clone().unwrap_or_default();
        let knows_enough =
            self.record.read && !(self.needs_handle && self.record.handle.is_empty());
        if !knows_enough && !self.is_read {
            self.phase = Phase::Reading;
            return Action::Read(self.current.state.clone());
        }
        self.is_sent = true;
        self.phase = Phase::Writing;
        let handle = Some(self.record.handle.clone()).filter(|handle| !handle.is_empty());
        Action::Write(self.current.state.clone(), handle)
    }

    fn after_read(&mut self, remote: RemoteState, now: Timestamp) -> Action {
        self.is_read = true;
        match remote {
            RemoteState::Same { handle } => {
                self.learn(handle);
                self.post(Ended::new(Outcome::Duplicate, SAME_STATE))
            }
            RemoteState::Other { handle } => {
                self.learn(handle);
                self.read_or_write(now)
            }
            RemoteState::Unknown => self.read_or_write(now),
        }
    }

    fn after_write(&mut self, sent: Sent) -> Action {
        if let Sent::Accepted { handle, .. } = &sent {
            self.learn(handle.clone());
        }
        self.is_read = true;
        self.post(Ended::from(sent))
    }

    /// Stores the state as posted. Loads the record again if another state is desired or another
    /// delivery holds the lease.
    fn post(&mut self, ended: Ended) -> Action {
        match record::posted(&self.record, &self.current, &self.lease) {
            Some(posted) => self.store(posted, Phase::Posting(ended)),
            None => self.load(Phase::Rechecking(ended)),
        }
    }

    /// Continues after the record has changed. If another delivery only recorded the same state,
    /// the write counts. Otherwise the desired state is written again, even if our write came last,
    /// because that is not certain.
    fn recheck(
        &mut self,
        ended: Ended,
        record: Option<Box<Record>>,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Action {
        self.take(record.map(|record| *record).unwrap_or_default(), revision);
        if let Some(posted) = record::posted(&self.record, &self.current, &self.lease) {
            return self.store(posted, Phase::Posting(ended));
        }
        if record::is_posted(&self.record, &self.current.state) && self.is_wanted() {
            return self.end(ended);
        }
        if !self.is_sent {
            return self.load(Phase::Deciding);
        }
        self.writes += 1;
        if self.writes >= MOST_WRITES {
            let why = "the state changes faster than the service answers";
            let failure = Failure::transient(Reason::RateLimited, why);
            return self.load(Phase::Releasing(self.failed(failure)));
        }
        let Some(wait) = record::foreign_lease(&self.record, &self.lease, now) else {
            self.record = record::leased(self.record.clone(), &self.lease, now);
            return self.store(self.record.clone(), Phase::Leasing(Some(ended)));
        };
        let wait = Action::Wait(wait.min(MOST_LEASE_WAIT));
        // If both wrote the same state, it does not matter which write came last.
        match self.is_wanted() {
            true => wait,
            false => self.doubt(Phase::Recording(Box::new(wait), Some(ended))),
        }
    }

    /// Releases the lease, so that others can write at once. If a write of ours may have come after
    /// another delivery's, that one no longer counts.
    fn release(
        &mut self,
        result: AttemptResult,
        record: Option<Box<Record>>,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Action {
        self.take(record.map(|record| *record).unwrap_or_default(), revision);
        if self.record.lease_holder == self.lease.holder {
            return self.store(record::freed(self.record.clone()), Phase::Leaving(result));
        }
        let may_be_written = self.is_sent && is_transient(&result);
        let is_anothers = self.record.posted.is_some()
            || record::foreign_lease(&self.record, &self.lease, now).is_some();
        match may_be_written && is_anothers && !self.is_wanted() {
            true => self.doubt(Phase::Leaving(result)),
            false => Action::End(result),
        }
    }

    /// Whether the state that was last written is still the desired one.
    fn is_wanted(&self) -> bool {
        let desired = self.record.desired.as_ref();
        desired.is_some_and(|desired| desired.state == self.current.state)
    }

    fn take(&mut self, mut record: Record, revision: Option<u64>) {
        record::merge(&mut record, &self.newest);
        self.newest = record.desired.clone().unwrap_or_default();
        (self.record, self.revision) = (record, revision);
        self.apply_learned();
    }

    fn learn(&mut self, handle: Option<String>) {
        self.handle = handle.or(self.handle.take());
        self.apply_learned();
    }

    /// Adds to the record what this attempt has learned from the service.
    fn apply_learned(&mut self) {
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
        let is_mine = self.current.delivery_id == self.mine.delivery_id;
        Action::End(match is_mine {
            true => ended.into(),
            false => AttemptResult::Ended {
                ended: Ended::new(Outcome::Superseded, NEWER_STATE),
                on_behalf_of: Some(self.current.delivery_id.clone()),
            },
        })
    }

    fn failed(&self, failure: Failure) -> AttemptResult {
        AttemptResult::Failed {
            failure,
            is_recorded: self.is_recorded,
        }
    }
}

fn is_transient(result: &AttemptResult) -> bool {
    matches!(
        result,
        AttemptResult::Failed {
            failure: Failure {
                kind: FailureKind::Transient { .. },
                ..
            },
            ..
        }
    )
}
