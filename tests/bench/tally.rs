//! The account of a load: when each event was posted, and when its deliveries came.

use std::cell::{RefCell, RefMut};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// For how long nothing may come before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the end of a load is looked for. It is no part of any figure.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What poster and receiver share. Events are numbered over the whole run, so that none is a
/// duplicate of another.
pub struct Tally {
    run: String,
    account: RefCell<Account>,
}

/// One load's account.
#[derive(Default)]
pub struct Account {
    /// The number of its first event.
    first: usize,
    events: Vec<Event>,
    /// From post to answer, for each event.
    pub answers: Times,
    /// From post to receipt, for each delivery.
    pub deliveries: Times,
}

/// What became of an event.
struct Event {
    posted: Instant,
    accepted: bool,
    deliveries: usize,
}

/// How long each of many took, and when the last one came.
#[derive(Default)]
pub struct Times {
    all: Vec<Duration>,
    last: Option<Instant>,
}

impl Tally {
    /// For a run of its own: what came from an earlier one is told apart by the message.
    pub fn new() -> Self {
        Self {
            run: format!("run {:08x} number ", rand::random::<u32>()),
            account: RefCell::default(),
        }
    }

    /// How every message of this run begins; the number follows.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Begins a load.
    pub fn begin(&self) {
        let mut account = self.account();
        *account = Account {
            first: account.next(),
            ..Account::default()
        };
    }

    /// Ends a load and gives its account.
    pub fn end(&self) -> Account {
        let mut account = self.account();
        let next = Account {
            first: account.next(),
            ..Account::default()
        };
        std::mem::replace(&mut account, next)
    }

    /// The number of an event that is posted now.
    pub fn post(&self) -> usize {
        let mut account = self.account();
        account.events.push(Event {
            posted: Instant::now(),
            accepted: false,
            deliveries: 0,
        });
        account.next() - 1
    }

    /// How many events have been posted.
    pub fn posted(&self) -> usize {
        self.account().events.len()
    }

    /// An event has got its answer.
    pub fn answered(&self, number: usize, status: u16) {
        let mut account = self.account();
        let Account {
            answers,
            events,
            first,
            ..
        } = &mut *account;
        if let Some(event) = event(events, *first, number) {
            event.accepted = status == 202;
            answers.add(event.posted);
        }
    }

    /// A delivery has come.
    pub fn received(&self, body: &[u8]) {
        let Some(number) = self.number(body) else {
            return;
        };
        let mut account = self.account();
        let Account {
            deliveries,
            events,
            first,
            ..
        } = &mut *account;
        // What is late from an earlier load counts as lost there, and not at all here.
        if let Some(event) = event(events, *first, number) {
            event.deliveries += 1;
            deliveries.add(event.posted);
        }
    }

    /// Waits until each accepted event has been delivered so many times, or nothing comes any more.
    pub async fn settled(&self, deliveries_per_event: usize) {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let (came, lost) = {
                let account = self.account();
                (
                    account.deliveries.count(),
                    account.lost(deliveries_per_event),
                )
            };
            if came != seen {
                (seen, since) = (came, Instant::now());
            }
            if lost == 0 || since.elapsed() > PATIENCE {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn number(&self, body: &[u8]) -> Option<usize> {
        let run = self.run.as_bytes();
        let start = body.windows(run.len()).position(|window| window == run)? + run.len();
        let digits = body[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
    }

    fn account(&self) -> RefMut<'_, Account> {
        self.account.borrow_mut()
    }
}

impl Account {
    /// How many events the program took.
    pub fn accepted(&self) -> usize {
        self.events.iter().filter(|event| event.accepted).count()
    }

    /// How many it answered with something else than 202.
    pub fn refused(&self) -> usize {
        self.answers.count() - self.accepted()
    }

    /// How many deliveries of accepted events have not come.
    pub fn lost(&self, deliveries_per_event: usize) -> usize {
        let accepted = self.events.iter().filter(|event| event.accepted);
        accepted
            .map(|event| deliveries_per_event.saturating_sub(event.deliveries))
            .sum()
    }

    /// How many deliveries have come that were not due.
    pub fn surplus(&self, deliveries_per_event: usize) -> usize {
        self.events
            .iter()
            .map(|event| event.deliveries.saturating_sub(deliveries_per_event))
            .sum()
    }

    /// From the first post to the last of these.
    pub fn span(&self, times: &Times) -> Duration {
        self.events
            .first()
            .zip(times.last)
            .map_or(Duration::ZERO, |(first, last)| last - first.posted)
    }

    /// The number of the next event.
    fn next(&self) -> usize {
        self.first + self.events.len()
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// What so many of a hundred took, or less.
    pub fn percentile(&mut self, percent: usize) -> Duration {
        self.all.sort_unstable();
        let rank = (self.all.len() * percent).div_ceil(100);
        self.all
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    fn add(&mut self, begin: Instant) {
        let now = Instant::now();
        self.all.push(now - begin);
        self.last = Some(now);
    }
}

fn event(events: &mut [Event], first: usize, number: usize) -> Option<&mut Event> {
    events.get_mut(number.checked_sub(first)?)
}
