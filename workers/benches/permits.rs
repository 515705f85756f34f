//! What the rule of local permits buys, in simulated time. Each scenario runs with the rule and
//! simpler ones, in one run: `cargo bench -p tidings-workers --bench permits`.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::model::jitter::jitter;
use tidings_workers::throttle::local_permits::{LocalPermits, TypeCapacity};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// The deliveries of a type that a worker holds.
const CAPACITY: usize = 512;
/// Each scenario lasts this long, in simulated time.
const LASTS: Duration = Duration::from_secs(120);
/// How long a simpler rule parks a delivery, with jitter.
const FIXED_RETRY: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);

/// How long the nth call takes.
type Takes = fn(usize) -> Duration;

const FAST: Takes = |_| 20 * MS;
const HANGS: Takes = |_| 30_000 * MS;
const HANGS_LATER: Takes = |nth| if nth < 40 { 20 * MS } else { 30_000 * MS };
const EVERY_TENTH_HANGS: Takes = |nth| if nth % 10 == 0 { 30_000 * MS } else { 20 * MS };

/// A name; then kind, call duration, deliveries per second, and number of destinations.
type Scenario = (&'static str, &'static [(&'static str, Takes, usize, usize)]);

const SCENARIOS: [Scenario; 10] = [
    ("20 ms, 2,000/s", &[("fast", FAST, 2000, 1)]),
    ("200 ms, 500/s", &[("slow", |_| 200 * MS, 500, 1)]),
    ("200 ms, 2,000/s", &[("slow", |_| 200 * MS, 2000, 1)]),
    (
        "fast beside 200 ms, 2,000/s",
        &[("fast", FAST, 50, 1), ("slow", |_| 200 * MS, 2000, 1)],
    ),
    ("2 s, 60/s", &[("slow", |_| 2000 * MS, 60, 1)]),
    (
        "every tenth call hangs, 40/s",
        &[("tenth", EVERY_TENTH_HANGS, 40, 1)],
    ),
    (
        "fast beside 8 that hang",
        &[("fast", FAST, 50, 1), ("hangs", HANGS, 20, 8)],
    ),
    (
        "fast beside 50 of 5 s",
        &[("fast", FAST, 50, 1), ("slow", |_| 5000 * MS, 5, 50)],
    ),
    (
        "20 fast beside 50 that hang",
        &[("fast", FAST, 20, 20), ("hangs", HANGS, 5, 50)],
    ),
    (
        "20 fast, 20 that hang later",
        &[("fast", FAST, 20, 20), ("later", HANGS_LATER, 5, 20)],
    ),
];

/// A rule for the calls of one destination at a time.
enum Rule {
    /// The rule of the workers.
    Shares(Box<LocalPermits>, TypeCapacity),
    /// The same, but a delivery without a permit is parked for a fixed time.
    Unpaced(Box<LocalPermits>, TypeCapacity),
    /// The same number for each destination, whatever the others do.
    Fixed(usize, Mutex<HashMap<Destination, Arc<Semaphore>>>),
}

type Permit = Box<dyn Any + Send>;

/// A rule with its name.
type NamedRule = (&'static str, fn() -> Rule);

const RULES: [NamedRule; 4] = [
    ("the rule", || {
        Rule::Shares(Box::default(), TypeCapacity::new(CAPACITY))
    }),
    ("unpaced", || {
        Rule::Unpaced(Box::default(), TypeCapacity::new(CAPACITY))
    }),
    ("64 each", || Rule::Fixed(64, Mutex::default())),
    ("8 each", || Rule::Fixed(8, Mutex::default())),
];

impl Rule {
    async fn take(&self, destination: &Destination, takes: Duration) -> Result<Permit, Duration> {
        let shares = async |permits: &LocalPermits, capacity| -> Result<Permit, Duration> {
            let mut permit = permits.take(destination, None, capacity).await?;
            permit.start();
            permit.answered(takes < HANGS(0));
            Ok(Box::new(permit) as Permit)
        };
        match self {
            Self::Shares(permits, capacity) => shares(permits, capacity).await,
            Self::Unpaced(permits, capacity) => {
                let taken = shares(permits, capacity).await;
                taken.map_err(|_| jitter(FIXED_RETRY))
            }
            Self::Fixed(size, all) => {
                let new = || Arc::new(Semaphore::new(*size));
                let free = all
                    .lock()
                    .entry(destination.clone())
                    .or_insert_with(new)
                    .clone();
                match timeout(100 * MS, free.acquire_owned()).await {
                    Ok(Ok(permit)) => Ok(Box::new(permit)),
                    _ => Err(jitter(FIXED_RETRY)),
                }
            }
        }
    }
}

/// One worker, and what waits for it.
struct Worker {
    rule: Rule,
    held: Semaphore,
    parked: AtomicUsize,
}

impl Worker {
    async fn deliver(&self, destination: &Destination, takes: Duration) {
        loop {
            let held = self.held.acquire().await;
            match self.rule.take(destination, takes).await {
                Ok(_permit) => return sleep(takes).await,
                Err(wait) => {
                    drop(held);
                    self.parked.fetch_add(1, Ordering::Relaxed);
                    sleep(wait).await;
                }
            }
        }
    }
}

/// How long each delivery of a kind took that ended in time, and how many messages were parked.
async fn run(rule: Rule, scenario: Scenario) -> (BTreeMap<&'static str, Vec<Duration>>, usize) {
    let (held, parked) = (Semaphore::new(CAPACITY), AtomicUsize::default());
    let worker = Arc::new(Worker { rule, held, parked });
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for &(kind, takes, per_second, destinations) in scenario.1 {
        for index in 0..destinations {
            let destination = Destination::channel("apps", kind, &index.to_string());
            for nth in 0..per_second * LASTS.as_secs() as usize {
                let (worker, destination) = (worker.clone(), destination.clone());
                let arrives =
                    start + Duration::from_secs(1).mul_f64(nth as f64 / per_second as f64);
                tasks.spawn(async move {
                    sleep_until(arrives).await;
                    worker.deliver(&destination, takes(nth)).await;
                    (kind, arrives.elapsed())
                });
            }
        }
    }
    let mut ended = BTreeMap::<_, Vec<_>>::new();
    while let Ok(Some(Ok((kind, took)))) = timeout_at(start + LASTS, tasks.join_next()).await {
        ended.entry(kind).or_default().push(took);
    }
    (ended, worker.parked.load(Ordering::Relaxed))
}

fn main() {
    for scenario in SCENARIOS {
        println!("{}", scenario.0);
        for (name, rule) in RULES {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            let (ended, parked) = runtime.block_on(run(rule(), scenario));
            for (kind, mut took) in ended {
                took.sort();
                let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64();
                let rate = took.len() as f64 / LASTS.as_secs_f64();
                let (p50, p99) = (at(50), at(99));
                println!("  {name:8}  {kind:5}  {rate:7.1}/s  p50 {p50:6.2} s  p99 {p99:6.2} s");
            }
            println!("  {name:8}  {parked} parked");
        }
    }
}
