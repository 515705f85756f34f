//! The bus, the service and the replicas of a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::time::between;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::{Desired, Order, Record};
use tidings_core::{Failure, Reason};

use crate::attempt::{AttemptResult, ParkRequest, Refusal};
use crate::newest_wins::machine::{Action, ActionResult, Machine};
use crate::newest_wins::record::{WriteLease, foreign_holder, freed};
use crate::newest_wins::simulation::processes::Processes;
use crate::notifier::contract::{RemoteState, Sent};

/// Time passes in steps of this many milliseconds.
const STEP_MS: u64 = 250;
/// A delivery that failed or was not admitted is parked for this long.
const PARKED_FOR: Duration = Duration::from_secs(1);
/// A call that takes longer is cut off by its timeout, unless the replica stalls.
const LONGEST_WRITE: Duration = Duration::from_secs(30);

/// The course of an action.
#[derive(Clone, Copy, Debug)]
pub enum Course {
    Succeeds,
    /// The service rejects the request.
    FailsAtService,
    /// It is carried out, but the answer is lost.
    AnswerLost,
    /// It is not carried out, because the request is lost.
    RequestLost,
    /// The throttle does not admit the call.
    NotAdmitted,
}

/// How often something happened that may cause one more write.
#[derive(Debug, Default)]
pub struct Reasons {
    /// Another state was recorded as desired.
    pub changes: usize,
    /// A process was killed.
    pub crashes: usize,
    /// A lease reached its latest end while its holder lived.
    expired_leases: usize,
    /// The attempts that lost the lease of their process while they lived.
    cut_off: BTreeSet<String>,
    /// A response was lost, or came after the lease of its writer.
    pub unanswered: usize,
}

impl Reasons {
    pub fn sum(&self) -> usize {
        self.changes + self.crashes + self.lost_leases() + self.unanswered
    }

    /// A lease ended while its holder lived.
    pub fn lost_leases(&self) -> usize {
        self.expired_leases + self.cut_off.len()
    }
}

pub struct World {
    now: Timestamp,
    events: Vec<Desired>,
    arrived: usize,
    ready: Vec<Message>,
    /// By Provider and park key: a second delivery replaces the first.
    parked: BTreeMap<(usize, String), (Message, Timestamp)>,
    tasks: Vec<Task>,
    stalled_replicas: BTreeSet<usize>,
    processes: Processes,
    started: usize,
    record: Option<Record>,
    revision: u64,
    /// What the service shows: its newest status, or its comments.
    shown: Vec<Vec<u8>>,
    keeps_comments: bool,
    is_readable: bool,
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
    machine: Machine,
    action: Action,
    lease: WriteLease,
    /// The number of its lease in the term of its process.
    number: u64,
    /// When it chose its action, and whether its replica has stalled since.
    chosen_at: Timestamp,
    has_stalled: bool,
    /// Whether its lease lapsed, so that its calls are cut off.
    is_cut_off: bool,
    /// The result of the action, if it was carried out and its result has not arrived yet.
    result: Option<ActionResult>,
    /// Whether it wrote after another attempt had taken its lease, and has not seen that yet.
    is_late: bool,
}

impl Task {
    fn is_bus_action(&self) -> bool {
        matches!(self.action, Action::Load | Action::Store(..))
    }

    fn is_call(&self) -> bool {
        matches!(
            self.action,
            Action::Prepare | Action::Read(_) | Action::Write(..)
        )
    }

    fn has_ended(&self) -> bool {
        matches!(self.action, Action::End(_) | Action::Wait(_))
    }
}

// === impl World ===

impl World {
    pub fn new(events: &[(i64, u8)], keeps_comments: bool, is_readable: bool) -> Self {
        let desired = |(number, (time_ms, state)): (usize, &(i64, u8))| Desired {
            order: Some(Order {
                time_ms: *time_ms,
                sequence: number as u64,
                ..Order::default()
            }),
            state: vec![b'a' + state],
            delivery_id: number.to_string(),
            planned_at: None,
            ..Desired::default()
        };
        Self {
            now: Timestamp::from_second(1_000_000).expect("a valid time"),
            events: events.iter().enumerate().map(desired).collect(),
            arrived: 0,
            ready: Vec::new(),
            parked: BTreeMap::new(),
            tasks: Vec::new(),
            stalled_replicas: BTreeSet::new(),
            processes: Processes::default(),
            started: 0,
            record: None,
            revision: 0,
            shown: Vec::new(),
            keeps_comments,
            is_readable,
            writes: 0,
            reads: 0,
            reasons: Reasons::default(),
        }
    }

    /// The status, or the first comment, that the service shows.
    pub fn shown(&self) -> Option<&[u8]> {
        self.shown.first().map(Vec::as_slice)
    }

    pub fn comments(&self) -> usize {
        self.shown.len()
    }

    /// The newest state of all events.
    pub fn newest(&self) -> Option<&[u8]> {
        let order = |desired: &&Desired| desired.order.map(|order| (order.time_ms, order.sequence));
        self.events
            .iter()
            .max_by_key(order)
            .map(|desired| desired.state.as_slice())
    }

    /// The delivery of the next event is ready.
    pub fn arrive(&mut self, provider: usize) {
        if let Some(desired) = self.events.get(self.arrived) {
            self.ready.push(Message {
                desired: desired.clone(),
                provider,
            });
            self.arrived += 1;
        }
    }

    /// A replica starts the attempt of a delivery that is ready.
    pub fn start(&mut self, message: usize, replica: usize) {
        if self.ready.is_empty() || self.stalled_replicas.contains(&replica) {
            return;
        }
        let message = self.ready.swap_remove(message % self.ready.len());
        self.started += 1;
        let holder = format!("attempt {}", self.started);
        let (process, number) = self.processes.hold(replica, &holder, self.now);
        let lease = WriteLease {
            holder: holder.clone(),
            process,
            lasts: Duration::from_secs(65),
            write: LONGEST_WRITE,
        };
        self.tasks.push(Task {
            replica,
            machine: Machine::new(message.desired.clone(), lease.clone(), self.keeps_comments),
            message,
            holder,
            lease,
            number,
            chosen_at: self.now,
            has_stalled: false,
            is_cut_off: false,
            action: Action::Load,
            result: None,
            is_late: false,
        });
    }

    /// Continues an attempt whose replica is not stalled.
    pub fn advance(&mut self, task: usize, course: Course) {
        let running: Vec<usize> = self.running().collect();
        if !running.is_empty() {
            self.advance_task(running[task % running.len()], course);
        }
    }

    pub fn stall(&mut self, replica: usize, is_stalled: bool) {
        if is_stalled {
            self.stalled_replicas.insert(replica);
            let stalled = self.tasks.iter_mut().filter(|task| task.replica == replica);
            stalled.for_each(|task| task.has_stalled = true);
        } else if self.stalled_replicas.remove(&replica) {
            self.cut_off_lapsed();
        }
    }

    /// The bus stops to confirm the renewals of a replica, or confirms them again.
    pub fn stop_renewals(&mut self, replica: usize, is_stopped: bool) {
        self.processes.stop_renewals(replica, is_stopped);
    }

    /// Cuts off the calls of leases that have lapsed. A request that a stalled replica had begun to
    /// send is carried out nevertheless.
    fn cut_off_lapsed(&mut self) {
        for task in &mut self.tasks {
            let is_stalled = self.stalled_replicas.contains(&task.replica);
            let is_sending = task.has_stalled && matches!(task.action, Action::Write(..));
            let lease = (task.lease.process.as_str(), task.number);
            if !is_stalled && !is_sending && self.processes.is_lost(task.replica, lease, self.now) {
                task.is_cut_off = true;
                self.reasons.cut_off.insert(task.holder.clone());
            }
        }
    }

    /// Kills a replica, perhaps right after an action of one of its attempts. Its deliveries are
    /// redelivered.
    pub fn crash(&mut self, replica: usize, after_action: bool) {
        let is_killed = |number: &usize| self.tasks[*number].replica == replica;
        let numbers: Vec<usize> = (0..self.tasks.len()).filter(is_killed).collect();
        if numbers.is_empty() || numbers.iter().any(|number| self.tasks[*number].is_late) {
            return;
        }
        let first = &self.tasks[numbers[0]];
        if after_action && !first.has_ended() && first.result.is_none() {
            self.advance_task(numbers[0], Course::Succeeds);
            if self.tasks[numbers[0]].is_late {
                return;
            }
        }
        self.reasons.crashes += 1;
        self.processes.kill(replica);
        let killed = self.tasks.extract_if(.., |task| task.replica == replica);
        self.ready.extend(killed.map(|task| task.message));
    }

    /// Time passes on all replicas. Those that are not stalled renew their leases meanwhile.
    pub fn pass(&mut self, milliseconds: u64) {
        let mut left = milliseconds;
        while left > 0 {
            let step = left.min(STEP_MS);
            left -= step;
            self.pass_step(Duration::from_millis(step));
        }
        let due = self.parked.extract_if(.., |_, (_, due)| *due <= self.now);
        self.ready.extend(due.map(|(_, (message, _))| message));
    }

    fn pass_step(&mut self, step: Duration) {
        let before = self.now;
        self.now += step;
        let record = self.record.clone().unwrap_or_default();
        let has_holder = self
            .tasks
            .iter()
            .any(|task| task.holder == record.lease_holder);
        if has_holder && lease_end(&record).is_some_and(|end| before < end && end <= self.now) {
            self.reasons.expired_leases += 1;
        }
        self.processes.renew(&self.stalled_replicas, self.now);
        self.cut_off_lapsed();
    }

    /// Redelivers the delivery of a running attempt.
    pub fn redeliver(&mut self, task: usize) {
        if !self.tasks.is_empty() {
            self.ready
                .push(self.tasks[task % self.tasks.len()].message.clone());
        }
    }

    /// Advances the attempt of a replica until it is about to write, or has just written.
    pub fn advance_to_write(&mut self, replica: usize, has_written: bool) {
        let number = self.task_of(replica);
        while !matches!(self.tasks[number].action, Action::Write(..))
            || self.tasks[number].result.is_some() != has_written
        {
            self.advance_task(number, Course::Succeeds);
        }
    }

    /// Advances the attempt of a replica until it is about to ask for admission.
    pub fn advance_to_prepare(&mut self, replica: usize) {
        let number = self.task_of(replica);
        while !matches!(self.tasks[number].action, Action::Prepare) {
            self.advance_task(number, Course::Succeeds);
        }
    }

    /// Advances the attempt of a replica to its end. `course` is that of its next action.
    pub fn advance_to_end(&mut self, replica: usize, course: Course) {
        let number = self.task_of(replica);
        let holder = self.tasks[number].holder.clone();
        self.advance_task(number, course);
        while let Some(number) = self.tasks.iter().position(|task| task.holder == holder) {
            self.advance_task(number, Course::Succeeds);
        }
    }

    fn task_of(&self, replica: usize) -> usize {
        let position = self.tasks.iter().position(|task| task.replica == replica);
        position.expect("the replica has an attempt")
    }

    pub fn delete_bucket(&mut self) {
        self.record = None;
        self.revision += 1;
    }

    /// Runs everything to its end, without faults. Stalled replicas continue after the others have
    /// finished.
    pub fn finish(&mut self) {
        self.processes.confirm_all_renewals();
        for _ in 0..2 {
            self.finish_all_but_stalled();
            for replica in std::mem::take(&mut self.stalled_replicas) {
                self.stalled_replicas.insert(replica);
                self.stall(replica, false);
            }
        }
    }

    fn finish_all_but_stalled(&mut self) {
        let replica = (0..).find(|replica| !self.stalled_replicas.contains(replica));
        let replica = replica.expect("there is always another replica");
        for _ in 0..100_000 {
            let running = self.running().next();
            if let Some(number) = running {
                self.advance_task(number, Course::Succeeds);
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
        panic!("the simulation does not finish");
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        let is_running =
            |number: &usize| !self.stalled_replicas.contains(&self.tasks[*number].replica);
        (0..self.tasks.len()).filter(is_running)
    }

    /// Carries out the action of an attempt, or receives its result. Anything can happen in
    /// between.
    fn advance_task(&mut self, number: usize, course: Course) {
        if self.tasks[number].is_cut_off && self.tasks[number].is_call() {
            self.tasks[number].result = None;
            let why = Failure::transient(Reason::Timeout, "the lease was lost");
            self.receive(number, ActionResult::Failed(why));
        } else if let Some(result) = self.tasks[number].result.take() {
            self.receive(number, result);
        } else if self.tasks[number].has_ended() {
            let Task {
                message,
                action,
                replica,
                lease,
                number,
                ..
            } = self.tasks.swap_remove(number);
            self.processes.release(replica, &lease.process, number);
            self.park(message, action);
        } else {
            let task = &self.tasks[number];
            let course = if task.is_bus_action() && task.is_late {
                Course::Succeeds
            } else {
                course
            };
            let result = self.carry_out(number, course);
            self.tasks[number].result = Some(result);
        }
    }

    fn receive(&mut self, number: usize, result: ActionResult) {
        let task = &mut self.tasks[number];
        let is_write = matches!(task.action, Action::Write(..));
        let record = self.record.as_ref();
        let holds_lease = record.is_some_and(|record| {
            record.lease_holder == task.holder && lease_end(record) > Some(self.now)
        });
        if is_write && !holds_lease && !matches!(result, ActionResult::Failed(_)) {
            self.reasons.unanswered += 1;
        }
        task.action = task.machine.next(result, self.now);
        (task.chosen_at, task.has_stalled) = (self.now, false);
        // The request to create a comment is sent at once: another one in between would create a
        // second comment.
        if self.keeps_comments && matches!(task.action, Action::Write(..)) {
            let result = self.carry_out(number, Course::Succeeds);
            self.tasks[number].result = Some(result);
        }
    }

    /// Parks the delivery of an attempt that has to be retried.
    fn park(&mut self, message: Message, end: Action) {
        let of_the_state = String::new();
        let (park_key, wait) = match end {
            Action::Wait(wait) => (of_the_state, wait),
            Action::End(AttemptResult::Failed {
                is_recorded: false, ..
            }) => (message.desired.delivery_id.clone(), PARKED_FOR),
            Action::End(AttemptResult::Failed { .. } | AttemptResult::Refused(_)) => {
                (of_the_state, PARKED_FOR)
            }
            _ => return,
        };
        self.parked
            .insert((message.provider, park_key), (message, self.now + wait));
    }

    fn carry_out(&mut self, number: usize, course: Course) -> ActionResult {
        let action = self.tasks[number].action.clone();
        let is_bus_action = self.tasks[number].is_bus_action();
        let is_done = matches!(course, Course::Succeeds | Course::AnswerLost);
        if matches!((&action, course), (Action::Prepare, Course::NotAdmitted)) {
            return ActionResult::NotAdmitted(Refusal::Park(ParkRequest {
                until: self.now + PARKED_FOR,
                may_be_woken: false,
                slot_ms: 0,
                why: NotAttempted::NoPermit,
            }));
        }
        let result = match action {
            Action::Load => self.load(number),
            Action::Store(record, revision) if is_done => self.store(&record, revision),
            Action::Prepare => ActionResult::Prepared,
            Action::Read(state) if is_done => self.read(&state),
            Action::Write(state, handle) if is_done => self.write(number, state, handle.as_deref()),
            Action::Store(..) | Action::Read(_) | Action::Write(..) => ActionResult::Stored(None),
            Action::Wait(_) | Action::End(_) => unreachable!("the attempt has ended"),
        };
        match course {
            Course::Succeeds => return result,
            Course::FailsAtService | Course::NotAdmitted if !is_bus_action => {}
            // The bus rejects nothing: it is unavailable.
            _ => self.reasons.unanswered += 1,
        }
        ActionResult::Failed(Failure::transient(Reason::Timeout, "no answer"))
    }

    /// Loads the record. The lease of a process that has ended does not count.
    fn load(&mut self, number: usize) -> ActionResult {
        let task = &self.tasks[number];
        let mut record = self.record.clone();
        if let Some(found) = &record
            && let Some(process) = foreign_holder(found, &task.lease)
            && self
                .processes
                .has_ended(task.replica, process, &found.lease_holder, self.now)
        {
            let is_alive = |task: &Task| task.holder == found.lease_holder;
            if self.tasks.iter().any(is_alive) {
                self.reasons.cut_off.insert(found.lease_holder.clone());
            }
            record = record.map(freed);
        }
        ActionResult::Loaded(
            record.map(Box::new),
            self.record.as_ref().map(|_| self.revision),
        )
    }

    fn store(&mut self, record: &Record, revision: Option<u64>) -> ActionResult {
        if revision != self.record.as_ref().map(|_| self.revision) {
            return ActionResult::Stored(None);
        }
        let state = |record: &Record| record.desired.as_ref().map(|desired| desired.state.clone());
        if self.record.as_ref().and_then(state) != state(record) {
            self.reasons.changes += 1;
        }
        self.record = Some(record.clone());
        self.revision += 1;
        ActionResult::Stored(Some(self.revision))
    }

    fn read(&mut self, state: &[u8]) -> ActionResult {
        self.reads += 1;
        let handle = self.keeps_comments.then(|| "0".to_owned());
        ActionResult::Read(match self.shown() {
            Some(shown) if self.is_readable && shown == state => RemoteState::Same { handle },
            Some(_) if self.is_readable => RemoteState::Other { handle },
            _ => RemoteState::Unknown,
        })
    }

    fn write(&mut self, number: usize, state: Vec<u8>, handle: Option<&str>) -> ActionResult {
        self.writes += 1;
        let task = &mut self.tasks[number];
        let record = self.record.as_ref();
        task.is_late = record.is_none_or(|record| record.lease_holder != task.holder);
        let is_slow = task.has_stalled || between(task.chosen_at, self.now) >= LONGEST_WRITE;
        assert!(
            !task.is_late || is_slow || record.is_none(),
            "two replicas write at the same time, and none has stalled"
        );
        let position = match handle {
            Some(handle) => handle.parse().expect("the simulation made the handle"),
            None if self.keeps_comments => self.shown.len(),
            None => 0,
        };
        self.shown
            .resize(self.shown.len().max(position + 1), Vec::new());
        self.shown[position] = state;
        let handle = self.keeps_comments.then(|| position.to_string());
        ActionResult::Written(Sent::Accepted {
            status: Some(201),
            handle,
        })
    }
}

fn lease_end(record: &Record) -> Option<Timestamp> {
    tidings_core::model::time::from_proto(record.lease_until)
}
