//! Measures how the throughput of deliveries grows with the number of worker processes.
//!
//! ```text
//!  events ─► ingest ═► router ═► 1, 2 or 4 workers, 64 deliveries at a time each ─► a receiver
//!                                                                         that takes 100 ms
//! ```
//!
//! The receiver is what limits each worker: a worker gives one destination about half of its
//! deliveries at a time, so it makes about 300 calls of 100 ms per second. So the figures show
//! whether workers hinder each other, and not how fast a core is. The numbers of workers alternate,
//! so that a change of the machine's load hits all of them. See docs/benchmark.md.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tidings_rig::{Process, Receiver, Reply, Rig, Role, alert, event, eventually_within, provider};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_tidings");
/// The numbers of workers.
const WORKERS: [usize; 3] = [1, 2, 4];
/// The deliveries that a worker handles at a time.
const CONCURRENCY: usize = 64;
/// The deliveries that each worker gets for a second of work.
const PER_SECOND: usize = 300;
/// How long the receiver takes.
const ANSWER: Duration = Duration::from_millis(100);
/// The number of concurrent posts.
const CONNECTIONS: usize = 32;
/// The time limit for the last deliveries.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measure the deliveries per second of 1, 2 and 4 workers to a receiver that takes 100 ms
#[derive(Parser, Debug)]
struct Options {
    /// Seconds of work for the workers of a run
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 5)]
    seconds: usize,
    /// How often each number of workers is measured
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// Write the figures to this file as JSON
    #[arg(long, env = "BENCH_WORKERS_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// The flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(
        options.seconds > 0 && options.rounds > 0,
        "nothing to measure"
    );
    let mut rates = WORKERS.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for (workers, rates) in WORKERS.into_iter().zip(&mut rates) {
            let rate = measured(workers, options.seconds).await?;
            println!("round {round}, workers {workers}: {rate:.0} deliveries/s");
            rates.push(rate);
        }
    }
    let medians = rates.clone().map(median);
    let figures: Vec<Value> = (WORKERS.into_iter().zip(&rates).zip(medians))
        .map(|((workers, rates), rate)| {
            json!({
                "workers": workers,
                "deliveriesPerSecond": rate,
                "ofOneWorker": rate / medians[0],
                "runs": rates,
            })
        })
        .collect();
    println!(
        "{:>8}{:>14}{:>16}",
        "workers", "deliveries/s", "of one worker"
    );
    for figure in &figures {
        println!(
            "{:>8}{:>14.0}{:>16.2}",
            figure["workers"].as_u64().unwrap_or_default(),
            figure["deliveriesPerSecond"].as_f64().unwrap_or_default(),
            figure["ofOneWorker"].as_f64().unwrap_or_default(),
        );
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The deliveries per second of this number of workers, in the middle of a run: without the time in
/// which they begin, and in which some have nothing left to do.
async fn measured(workers: usize, seconds: usize) -> anyhow::Result<f64> {
    let rig = Rig::start(EXECUTABLE).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(ANSWER));
    rig.rules()
        .put([provider("slow", receiver.url()), alert("all", "slow")]);
    let [_router, ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    let concurrency = CONCURRENCY.to_string();
    let worker = || Role::worker().env("TIDINGS_WORKER__CONCURRENCY", &concurrency);
    let mut running = Vec::new();
    for _ in 0..workers {
        running.push(rig.run(worker()).await);
    }
    let events = workers * PER_SECOND * seconds;
    post(&ingest, events).await?;
    eventually_within(PATIENCE, "all deliveries are made", async || {
        (receiver.count() >= events).then_some(())
    })
    .await;
    rig.drained().await;
    let received = receiver.received();
    ensure!(
        received.len() == events,
        "{} of {events} deliveries",
        received.len()
    );
    let (first, last) = (events / 5, events * 4 / 5);
    let took = received[last].at - received[first].at;
    Ok((last - first) as f64 / took.as_secs_f64())
}

async fn post(ingest: &Process, events: usize) -> anyhow::Result<()> {
    let posts = stream::iter(0..events).map(async |number| {
        let answer = ingest.post(&event(&format!("event {number}"))).await?;
        ensure!(answer.status == 202, "the answer is {}", answer.status);
        Ok(())
    });
    posts.buffer_unordered(CONNECTIONS).try_collect().await
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
