//! Senders that go on while pods change, and the balance at the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_rig::{Receiver, event, eventually_within, post_steadily};

use crate::cluster::{CHANGE, output_of, variable};

const BATCH: Duration = Duration::from_secs(10);

/// Posts events to an address, and returns the messages of all of them.
pub async fn post(address: &str, prefix: &str, rate: u32, length: Duration) -> BTreeSet<String> {
    let named = |number| event(&format!("{prefix}-{number:05}"));
    let posted = post_steadily(address, rate, length, named).await;
    posted.into_iter().map(|posted| posted.message).collect()
}

/// Posts events with the recorder of Flux's controllers, and returns the messages of all of them.
pub async fn record(address: &str, prefix: &str, rate: u32, length: Duration) -> BTreeSet<String> {
    let count = (u64::from(rate) * length.as_secs()).to_string();
    let arguments = [address, prefix, &count, &rate.to_string()];
    let printed = output_of(&variable("RECORDER"), &arguments, "").await;
    printed.lines().map(str::to_owned).collect()
}

/// Sends events with both senders, in batches, until the changes are made. Returns all messages.
pub async fn send_during(
    address: &str,
    prefix: &str,
    rate: u32,
    changes: impl Future<Output = ()>,
) -> BTreeSet<String> {
    let are_made = AtomicBool::new(false);
    let sending = async {
        let mut sent = BTreeSet::new();
        for batch in 0.. {
            let (ours, flux) = (
                format!("{prefix}-{batch}"),
                format!("{prefix}-flux-{batch}"),
            );
            let (posted, recorded) = tokio::join!(
                post(address, &ours, rate, BATCH),
                record(address, &flux, rate, BATCH),
            );
            sent.extend(posted.into_iter().chain(recorded));
            if are_made.load(Ordering::Relaxed) {
                break;
            }
        }
        sent
    };
    let changes = async {
        changes.await;
        are_made.store(true, Ordering::Relaxed);
    };
    tokio::join!(sending, changes).0
}

/// Waits until every posted event is received, and prints how many were received twice.
///
/// # Panics
/// Events are missing, or something was received that was never posted.
pub async fn balance(what: &str, posted: &BTreeSet<String>, receiver: &Receiver) {
    let received = || receiver.tally();
    let missing = || {
        let received = received();
        let is_missing = |message: &&String| !received.contains_key(*message);
        posted
            .iter()
            .filter(is_missing)
            .cloned()
            .collect::<Vec<_>>()
    };
    let wait = eventually_within(CHANGE * 2, "all events are received", async || {
        missing().is_empty().then_some(())
    });
    if tokio::time::timeout(CHANGE, wait).await.is_err() {
        panic!("{what}: accepted, but not received: {:?}", missing());
    }
    let received = received();
    let unknown: Vec<_> = received
        .keys()
        .filter(|message| !posted.contains(*message))
        .collect();
    assert!(
        unknown.is_empty(),
        "{what}: received, but never posted: {unknown:?}"
    );
    let twice = received.values().filter(|(count, _)| *count > 1).count();
    println!(
        "{what}: {} posted, all received, {twice} of them more than once",
        posted.len()
    );
}
