//! Checks that a test leaves no delivery or event on the bus.

use std::sync::OnceLock;
use std::time::Duration;

use async_nats::jetstream;
use futures::TryStreamExt;

/// A server that does not respond within this time was stopped by the test.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bus of a rig. It must be empty at the end, unless the test gives a reason.
pub(crate) struct Unfinished {
    url: String,
    reason: OnceLock<&'static str>,
}

impl Unfinished {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            reason: OnceLock::new(),
        }
    }

    pub(crate) fn expect(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
    }

    /// Panics when deliveries are ready or parked, or events are not routed.
    ///
    /// Messages that a killed process held are not counted. A server that does not respond, or that
    /// requires credentials, is not checked.
    pub(crate) fn assert_none(&self) {
        if self.reason.get().is_some() || std::thread::panicking() {
            return;
        }
        let url = self.url.clone();
        // In its own thread, because a thread of a runtime cannot block on another runtime.
        let counted = std::thread::spawn(|| count(url)).join();
        let left = counted
            .expect("counting does not panic")
            .unwrap_or_default();
        assert!(
            left.is_empty(),
            "the test left {left}; wait for `Rig::drained`, or give the reason with \
             `Rig::leaves_unfinished`"
        );
    }
}

fn count(url: String) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, describe(&url)).await.ok()? })
}

/// Describes the unfinished deliveries and events; empty if there are none.
async fn describe(url: &str) -> Option<String> {
    let servers: Vec<String> = url.split(',').map(str::to_owned).collect();
    let client = async_nats::connect(servers).await.ok()?;
    let jetstream = jetstream::new(client);
    let mut left = Vec::new();
    if let Some(count @ 1..) = waiting_deliveries(&jetstream).await {
        left.push(format!("{count} deliveries, ready or parked"));
    }
    if let Some(count @ 1..) = unread_events(&jetstream).await {
        left.push(format!("{count} events that no router has read"));
    }
    Some(left.join(" and "))
}

/// The messages of DELIVERIES that no worker holds.
async fn waiting_deliveries(jetstream: &jetstream::Context) -> Option<u64> {
    let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
    let stored = stream.info().await.ok()?.state.messages;
    let consumers: Vec<_> = stream.consumers().try_collect().await.ok()?;
    let held = consumers
        .iter()
        .map(|consumer| consumer.num_ack_pending as u64);
    Some(stored.saturating_sub(held.sum()))
}

async fn unread_events(jetstream: &jetstream::Context) -> Option<u64> {
    let stream = jetstream.get_stream("EVENTS").await.ok()?;
    let router = stream.consumer_info("router").await.ok()?;
    Some(router.num_pending)
}
