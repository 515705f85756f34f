//! A sender that posts at a steady rate and retries until an event is accepted.

use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use crate::process::client;

/// The pause between two posts of the same event.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How long an answer may take. A pod that is gone may not even close its connections.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An accepted event.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Its message, which identifies it.
    pub message: String,
    /// When it was posted for the first time.
    pub at: Instant,
}

/// Posts `rate` events a second for `length` to the address of an ingest that may fail at times.
/// Each event is posted until the answer is 202, or 429 if an earlier post was stored.
pub async fn post_steadily(
    address: &str,
    rate: u32,
    length: Duration,
    event: impl Fn(u32) -> Value,
) -> Vec<Posted> {
    let mut tick = ticks(rate);
    let mut posting = JoinSet::new();
    for number in 0..rate * u32::try_from(length.as_secs()).expect("a test is short") {
        tick.tick().await;
        posting.spawn(post_until_accepted(address.to_owned(), event(number)));
    }
    posting.join_all().await
}

/// Like [`post_steadily`], until the changes have ended.
pub async fn post_during(
    address: &str,
    rate: u32,
    event: impl Fn(u32) -> Value,
    changes: impl Future<Output = ()>,
) -> Vec<Posted> {
    let (mut tick, mut changes) = (ticks(rate), pin!(changes));
    let mut posting = JoinSet::new();
    for number in 0.. {
        select! {
            () = &mut changes => break,
            _ = tick.tick() => {
                posting.spawn(post_until_accepted(address.to_owned(), event(number)));
            }
        }
    }
    posting.join_all().await
}

fn ticks(rate: u32) -> Interval {
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    tick
}

async fn post_until_accepted(address: String, event: Value) -> Posted {
    let message = event["message"]
        .as_str()
        .expect("an event has a message")
        .to_owned();
    let at = Instant::now();
    loop {
        let body = event.to_string();
        let answer = client()
            .post(&address)
            .header("content-type", "application/json")
            .body(body)
            .timeout(TIMEOUT)
            .send()
            .await;
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(202 | 429) => return Posted { message, at },
            Ok(400..500) => panic!("the event {message:?} is rejected"),
            _ => sleep(RETRY_AFTER).await,
        }
    }
}
