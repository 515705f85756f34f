//! Records when each event was posted, and when its deliveries were received.

use std::cell::{RefCell, RefMut};
use std::time::{Duration, Instant};

use tidings_rig::percentile;
use tokio::time::sleep;

/// Deliveries count as lost when nothing was received for this time.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the end of a load is checked. It is not part of any figure.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Shared by poster and receiver. Events are numbered over the whole run, so that none is a
/// duplicate.
pub struct Tally {
    run: String,
    account: RefCell<Account>,
}

/// The record of one load.
#[derive(Default)]
pub struct Account {
    /// The number of its first event.
    first: usize,
    events: Vec<Event>,
    /// From post to response, for each event.
    pub responses: Times,
    /// From post to receipt, for each delivery.
    pub deliveries: Times,
}

/// One event.
struct Event {
    posted: Instant,
    accepted: bool,
    deliveries: usize,
}

/// Durations, and the time of the last one.
#[derive(Default)]
pub struct Times {
    all: Vec<Duration>,
    last: Option<Instant>,
}

impl Tally {
    /// A tally of a new run. Messages distinguish its events from those of earlier runs.
    pub fn new() -> Self {
        Self {
            run: format!("run {:08x} number ", rand::random::<u32>()),
            account: RefCell::default(),
        }
    }

    /// The beginning of every message of this run; the number follows.
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

    /// Ends a load and returns its record.
    pub fn end(&self) -> Account {
        let mut account = self.account();
        let next = Account {
            first: account.next(),
            ..Account::default()
        };
        std::mem::replace(&mut account, next)
    }

    /// Records a post and returns the number of the event.
    pub fn post(&self) -> usize {
        let mut account = self.account();
        account.events.push(Event {
            posted: Instant::now(),
            accepted: false,
            deliveries: 0,
        });
        account.next() - 1
    }

    /// The number of posted events.
    pub fn posted(&self) -> usize {
        self.account().events.len()
    }

    /// Records the response to an event.
    pub fn responded(&self, number: usize, status: u16) {
        let mut account = self.account();
        let Account {
            responses,
            events,
            first,
            ..
        } = &mut *account;
        if let Some(event) = event(events, *first, number) {
            event.accepted = status == 202;
            responses.add(event.posted);
        }
    }

    /// Records a received delivery.
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
        // A late delivery of an earlier load counts as lost there, and is ignored here.
        if let Some(event) = event(events, *first, number) {
            event.deliveries += 1;
            deliveries.add(event.posted);
        }
    }

    /// Waits until all deliveries of accepted events are received, or nothing is received any more.
    pub async fn wait_for_deliveries(&self, deliveries_per_event: usize) {
        let (mut counted, mut since) = (0, Instant::now());
        loop {
            let (count, lost) = {
                let account = self.account();
                (
                    account.deliveries.count(),
                    account.lost(deliveries_per_event),
                )
            };
            if count != counted {
                (counted, since) = (count, Instant::now());
            }
            if lost == 0 || since.elapsed() > PATIENCE {
                return;
            }
            sleep(CHECK_EVERY).await;
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
    /// The number of accepted events.
    pub fn accepted(&self) -> usize {
        self.events.iter().filter(|event| event.accepted).count()
    }

    /// The number of events with another response than 202.
    pub fn rejected(&self) -> usize {
        self.responses.count() - self.accepted()
    }

    /// The number of missing deliveries of accepted events.
    pub fn lost(&self, deliveries_per_event: usize) -> usize {
        let accepted = self.events.iter().filter(|event| event.accepted);
        accepted
            .map(|event| deliveries_per_event.saturating_sub(event.deliveries))
            .sum()
    }

    /// The number of additional deliveries.
    pub fn surplus(&self, deliveries_per_event: usize) -> usize {
        self.events
            .iter()
            .map(|event| event.deliveries.saturating_sub(deliveries_per_event))
            .sum()
    }

    /// The time from the first post to the last of these.
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
    /// The number of durations.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The duration that this percentage does not exceed.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        self.all.sort_unstable();
        percentile(&self.all, percent).unwrap_or_default()
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
