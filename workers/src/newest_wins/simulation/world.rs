//! The bus, the forge and the replicas of a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::wire::{Desired, Order, Record};
use tidings_core::{Failure, Reason};

use crate::newest_wins::machine::{Action, Answer, Keeping, Kept};
use crate::newest_wins::record::Lease;
use crate::notifier::contract::{RemoteState, Sent};

/// How an action goes.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Well,
    /// The service says that it can't.
    Refused,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// It is not done, and nobody hears of it.
    RequestLost,
}

/// What may cost a write each.
#[derive(Debug, Default)]
pub struct Reasons {
    /// Another state was noted as desired.
    pub changes: usize,
    /// Processes that were killed.
    pub crashes: usize,
    /// Leases that ran out while their holder lived.
    pub lost_leases: usize,
    /// Answers that never came, or after their writer's lease.
    pub unanswered: usize,
}

impl Reasons {
    pub fn sum(&self) -> usize {
        self.changes + self.crashes + self.lost_leases + self.unanswered
    }
}

pub struct World {
    now: Timestamp,
    events: Vec<Desired>,
    arrived: usize,
    ready: Vec<Message>,
    /// By place: a second one takes the place of the first.
    parked: BTreeMap<(usize, String), (Message, Timestamp)>,
    tasks: Vec<Task>,
    /// Replicas that stand still.
    still: BTreeSet<usize>,
    started: usize,
    record: Option<Record>,
    revision: u64,
    /// What the forge shows: its newest status, or its comments.
    shown: Vec<Vec<u8>>,
    keeps_comments: bool,
    can_be_read: bool,
    pub writes: usize,
    pub reads: usize,
    pub reasons: Reasons,
}

#[derive(Clone)]
struct Message {
    desired: Desired,
    provider: usize,
}

/// An attempt of a replica.
struct Task {
    replica: usize,
    message: Message,
    holder: String,
    keeping: Keeping,
    action: Action,
    /// The action is done, and this is its answer, which is under way.
    answer: Option<Answer>,
    /// It wrote after another had taken its lease, and has not seen that yet.
    is_late: bool,
}

// === impl World ===

impl World {
    pub fn new(events: &[(i64, u8)], keeps_comments: bool, can_be_read: bool) -> Self {
        let desired = |(number, (time_ms, state)): (usize, &(i64, u8))| Desired {
            order: Some(Order {
                time_ms: *time_ms,
                sequence: number as u64,
            }),
            state: vec![b'a' + state],
            delivery_id: number.to_string(),
            planned_at: None,
        };
        Self {
            now: Timestamp::from_second(1_000_000).expect("it is a time"),
            events: events.iter().enumerate().map(desired).collect(),
            arrived: 0,
            ready: Vec::new(),
            parked: BTreeMap::new(),
            tasks: Vec::new(),
            still: BTreeSet::new(),
            started: 0,
            record: None,
            revision: 0,
            shown: Vec::new(),
            keeps_comments,
            can_be_read,
            writes: 0,
            reads: 0,
            reasons: Reasons::default(),
        }
    }

    /// What the forge shows first.
    pub fn shown(&self) -> Option<&[u8]> {
        self.shown.first().map(Vec::as_slice)
    }

    /// How many comments there are.
    pub fn made(&self) -> usize {
        self.shown.len()
    }

    /// The newest state of all events.
    pub fn newest(&self) -> Option<&[u8]> {
        let place = |desired: &&Desired| desired.order.map(|order| (order.time_ms, order.sequence));
        self.events
            .iter()
            .max_by_key(place)
            .map(|desired| desired.state.as_slice())
    }

    pub fn arrive(&mut self, provider: usize) {
        if let Some(desired) = self.events.get(self.arrived) {
            self.ready.push(Message {
                desired: desired.clone(),
                provider,
            });
            self.arrived += 1;
        }
    }

    pub fn start(&mut self, message: usize, replica: usize) {
        if self.ready.is_empty() || self.still.contains(&replica) {
            return;
        }
        let message = self.ready.swap_remove(message % self.ready.len());
        self.started += 1;
        let holder = format!("attempt {}", self.started);
        let lease = Lease {
            holder: holder.clone(),
            lasts: Duration::from_secs(65),
            write: Duration::from_secs(30),
        };
        let keeping = Keeping::new(message.desired.clone(), lease, self.keeps_comments);
        self.tasks.push(Task {
            replica,
            message,
            holder,
            keeping,
            action: Action::Load,
            answer: None,
            is_late: false,
        });
    }

    pub fn go_on(&mut self, task: usize, how: How) {
        let moving: Vec<usize> = self.moving().collect();
        if !moving.is_empty() {
            self.go_on_with(moving[task % moving.len()], how);
        }
    }

    pub fn stand_still(&mut self, replica: usize, is_still: bool) {
        if is_still {
            self.still.insert(replica)
        } else {
            self.still.remove(&replica)
        };
    }

    /// Kills a replica; perhaps one of its attempts has just done something. What it held comes
    /// again.
    pub fn crash(&mut self, replica: usize, has_acted: bool) {
        let numbers: Vec<usize> = (0..self.tasks.len())
            .filter(|number| self.tasks[*number].replica == replica)
            .collect();
        if numbers.is_empty() || numbers.iter().any(|number| self.tasks[*number].is_late) {
            return;
        }
        if has_acted
            && !matches!(self.tasks[numbers[0]].action, Action::End(_))
            && self.tasks[numbers[0]].answer.is_none()
        {
            self.go_on_with(numbers[0], How::Well);
            if self.tasks[numbers[0]].is_late {
                return;
            }
        }
        self.reasons.crashes += 1;
        let killed = self.tasks.extract_if(.., |task| task.replica == replica);
        self.ready.extend(killed.map(|task| task.message));
    }

    pub fn pass(&mut self, milliseconds: u64) {
        let before = self.now;
        self.now += Duration::from_millis(milliseconds);
        let record = self.record.clone().unwrap_or_default();
        let has_holder = self
            .tasks
            .iter()
            .any(|task| task.holder == record.lease_holder);
        if has_holder && lease_end(&record).is_some_and(|end| before < end && end <= self.now) {
            self.reasons.lost_leases += 1;
        }
        let due = self.parked.extract_if(.., |_, (_, due)| *due <= self.now);
        self.ready.extend(due.map(|(_, (message, _))| message));
    }

    pub fn come_again(&mut self, task: usize) {
        if !self.tasks.is_empty() {
            self.ready
                .push(self.tasks[task % self.tasks.len()].message.clone());
        }
    }

    /// The replica's attempt goes on until it is about to write, or has just written.
    pub fn go_on_to_write(&mut self, replica: usize, has_written: bool) {
        let number = self.task_of(replica);
        while !matches!(self.tasks[number].action, Action::Write(..))
            || self.tasks[number].answer.is_some() != has_written
        {
            self.go_on_with(number, How::Well);
        }
    }

    /// The replica's attempt goes on to its end; its next action goes so.
    pub fn go_on_to_end(&mut self, replica: usize, how: How) {
        let number = self.task_of(replica);
        let holder = self.tasks[number].holder.clone();
        self.go_on_with(number, how);
        while let Some(number) = self.tasks.iter().position(|task| task.holder == holder) {
            self.go_on_with(number, How::Well);
        }
    }

    fn task_of(&self, replica: usize) -> usize {
        self.tasks
            .iter()
            .position(|task| task.replica == replica)
            .expect("it has an attempt")
    }

    pub fn lose_bucket(&mut self) {
        self.record = None;
        self.revision += 1;
    }

    /// Everything that has not happened yet happens without faults. Those who stand still go on
    /// when the others are done.
    pub fn come_to_rest(&mut self) {
        for _ in 0..2 {
            self.come_to_rest_but_for(self.still.clone());
            self.still.clear();
        }
    }

    fn come_to_rest_but_for(&mut self, still: BTreeSet<usize>) {
        let replica = (0..)
            .find(|replica| !still.contains(replica))
            .expect("there are numbers enough");
        for _ in 0..100_000 {
            let moving = self.moving().next();
            if let Some(number) = moving {
                self.go_on_with(number, How::Well);
            } else if !self.ready.is_empty() {
                self.start(0, replica);
            } else if self.arrived < self.events.len() && self.parked.is_empty() {
                self.arrive(0);
            } else if self.parked.is_empty() {
                return;
            } else {
                self.pass(500);
            }
        }
        panic!("it never comes to rest");
    }

    fn moving(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|number| !self.still.contains(&self.tasks[*number].replica))
    }

    /// An attempt does its action, or is told how that ended: in between, anything can happen.
    fn go_on_with(&mut self, number: usize, how: How) {
        if let Some(answer) = self.tasks[number].answer.take() {
            self.tell(number, answer);
        } else if let Action::End(kept) = &self.tasks[number].action {
            let kept = kept.clone();
            let Task { message, .. } = self.tasks.swap_remove(number);
            self.settle(message, kept);
        } else {
            let is_of_the_bus =
                matches!(self.tasks[number].action, Action::Load | Action::Store(..));
            let how = if is_of_the_bus && self.tasks[number].is_late {
                How::Well
            } else {
                how
            };
            let answer = self.act(number, how);
            self.tasks[number].answer = Some(answer);
        }
    }

    fn tell(&mut self, number: usize, answer: Answer) {
        let task = &mut self.tasks[number];
        let is_write = matches!(task.action, Action::Write(..));
        let record = self.record.as_ref();
        let holds_lease = record.is_some_and(|record| {
            record.lease_holder == task.holder && lease_end(record) > Some(self.now)
        });
        if is_write && !holds_lease && !matches!(answer, Answer::Failed(_)) {
            self.reasons.unanswered += 1;
        }
        task.action = task.keeping.next(answer, self.now);
        // A comment's request goes out at once: with another's in between there would be two.
        if self.keeps_comments && matches!(task.action, Action::Write(..)) {
            let answer = self.act(number, How::Well);
            self.tasks[number].answer = Some(answer);
        }
    }

    fn settle(&mut self, message: Message, kept: Kept) {
        let place = if kept.is_noted() {
            String::new()
        } else {
            message.desired.delivery_id.clone()
        };
        let wait = match kept {
            Kept::Ended { .. } => return,
            Kept::Wait(wait) => wait,
            Kept::Failed { .. } => Duration::from_secs(1),
        };
        self.parked
            .insert((message.provider, place), (message, self.now + wait));
    }

    fn act(&mut self, number: usize, how: How) -> Answer {
        let action = self.tasks[number].action.clone();
        let is_of_the_bus = matches!(action, Action::Load | Action::Store(..));
        let is_done = matches!(how, How::Well | How::AnswerLost);
        let answer = match action {
            Action::Load => Answer::Loaded(
                self.record.clone().map(Box::new),
                self.record.as_ref().map(|_| self.revision),
            ),
            Action::Store(record, revision) if is_done => self.store(&record, revision),
            Action::Prepare => Answer::Prepared,
            Action::Read(state) => self.read(&state),
            Action::Write(state, handle) if is_done => self.write(number, state, handle.as_deref()),
            Action::Store(..) | Action::Write(..) => Answer::Stored(None),
            Action::End(_) => unreachable!("an end is settled"),
        };
        match how {
            How::Well => return answer,
            How::Refused if !is_of_the_bus => {}
            // The bus refuses nothing; it is away.
            How::Refused => self.reasons.unanswered += 1,
            How::AnswerLost | How::RequestLost => self.reasons.unanswered += 1,
        }
        Answer::Failed(Failure::transient(Reason::Timeout, "no answer"))
    }

    fn store(&mut self, record: &Record, revision: Option<u64>) -> Answer {
        if revision != self.record.as_ref().map(|_| self.revision) {
            return Answer::Stored(None);
        }
        let state = |record: &Record| record.desired.as_ref().map(|desired| desired.state.clone());
        if self.record.as_ref().and_then(state) != state(record) {
            self.reasons.changes += 1;
        }
        self.record = Some(record.clone());
        self.revision += 1;
        Answer::Stored(Some(self.revision))
    }

    fn read(&mut self, state: &[u8]) -> Answer {
        self.reads += 1;
        let handle = self.keeps_comments.then(|| "0".to_owned());
        Answer::RemoteState(match self.shown() {
            Some(shown) if self.can_be_read && shown == state => RemoteState::Same { handle },
            Some(_) if self.can_be_read => RemoteState::Other { handle },
            _ => RemoteState::Unknown,
        })
    }

    fn write(&mut self, number: usize, state: Vec<u8>, handle: Option<&str>) -> Answer {
        self.writes += 1;
        let task = &mut self.tasks[number];
        task.is_late = self
            .record
            .as_ref()
            .is_none_or(|record| record.lease_holder != task.holder);
        let place = match handle {
            Some(handle) => handle.parse().expect("we gave it"),
            None if self.keeps_comments => self.shown.len(),
            None => 0,
        };
        self.shown
            .resize(self.shown.len().max(place + 1), Vec::new());
        self.shown[place] = state;
        let handle = self.keeps_comments.then(|| place.to_string());
        Answer::Sent(Sent::Accepted {
            status: Some(201),
            handle,
        })
    }
}

fn lease_end(record: &Record) -> Option<Timestamp> {
    let until = record.lease_until?;
    Timestamp::new(until.seconds, until.nanos).ok()
}
