//! Checks that a test leaves no delivery or event on the bus, and that no loss was found.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation, Tls};
use async_nats::{ConnectError, jetstream};
use futures::TryStreamExt;
use tidings_core::Message as _;
use tidings_core::wire::DeliveryCounts;

/// How long the server may take to respond.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The bus of a rig. It must be empty at the end, except for the deliveries that the test expects.
pub(crate) struct Unfinished {
    url: String,
    expected: AtomicU64,
    expects_losses: AtomicBool,
}

/// What is left on the bus.
#[derive(Debug, Default)]
struct Left {
    /// Messages of DELIVERIES that no worker holds.
    deliveries: u64,
    /// Events that the router has not read.
    events: u64,
    /// Deliveries that the roles found to be lost.
    lost: u64,
}

impl Unfinished {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            expected: AtomicU64::new(0),
            expects_losses: AtomicBool::new(false),
        }
    }

    pub(crate) fn expect(&self, most: u64) {
        self.expected.store(most, Ordering::Relaxed);
    }

    pub(crate) fn expect_losses(&self) {
        self.expects_losses.store(true, Ordering::Relaxed);
    }

    /// Panics when more deliveries are ready or parked than expected, when events are not routed,
    /// and when the server does not respond.
    ///
    /// Messages that a killed process held are not counted. A server that requires credentials
    /// or a private certificate is not checked.
    pub(crate) fn assert_none(&self) {
        if std::thread::panicking() {
            return;
        }
        let url = self.url.clone();
        // In its own thread, because a thread of a runtime cannot block on another runtime.
        let counted = std::thread::spawn(|| count(url)).join();
        let left = counted.expect("counting does not panic");
        let most = self.expected.load(Ordering::Relaxed);
        assert!(
            left.deliveries <= most && left.events == 0,
            "the test left {left:?}, and at most {most} deliveries are expected; wait for \
             `Rig::drained`, or give the reason with `Rig::leaves_deliveries`"
        );
        assert!(
            left.lost == 0 || self.expects_losses.load(Ordering::Relaxed),
            "the roles found {} lost deliveries; if the test removed them, give the reason with \
             `Rig::expects_losses`",
            left.lost
        );
    }
}

fn count(url: String) -> Left {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let counted = runtime.block_on(async { tokio::time::timeout(TIMEOUT, count_on(&url)).await });
    counted.expect("the server responds in time")
}

async fn count_on(url: &str) -> Left {
    let servers: Vec<String> = url.split(',').map(str::to_owned).collect();
    let client = match async_nats::connect(servers).await {
        Ok(client) => client,
        Err(error) if is_refusal(&error) => return Left::default(),
        Err(error) => panic!("the rig's nats-server accepts connections: {error}"),
    };
    let jetstream = jetstream::new(client);
    Left {
        deliveries: waiting_deliveries(&jetstream).await.unwrap_or_default(),
        events: unread_events(&jetstream).await.unwrap_or_default(),
        lost: recorded_counts(&jetstream).await.map_or(0, |counts| {
            counts.lost_ready + counts.lost_parked + counts.lost_skipped
        }),
    }
}

/// Whether the server runs, and requires credentials or a certificate that only the test knows.
fn is_refusal(error: &ConnectError) -> bool {
    let broken_tls = || {
        let source = error.source()?.downcast_ref::<io::Error>()?;
        Some(source.kind() == io::ErrorKind::InvalidData)
    };
    matches!(error.kind(), Authentication | AuthorizationViolation | Tls)
        || broken_tls() == Some(true)
}

/// `None` if the test made no such stream, or deleted it.
async fn waiting_deliveries(jetstream: &jetstream::Context) -> Option<u64> {
    let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
    let stored = stream.info().await.ok()?.state.messages;
    let consumers: Vec<_> = stream.consumers().try_collect().await.ok()?;
    let held = consumers
        .iter()
        .map(|consumer| consumer.num_ack_pending as u64);
    Some(stored.saturating_sub(held.sum()))
}

/// The server's counts as the roles last recorded them. `None` if no role ran.
pub(crate) async fn recorded_counts(jetstream: &jetstream::Context) -> Option<DeliveryCounts> {
    let bucket = jetstream.get_key_value("counts").await.ok()?;
    let value = bucket.get("deliveries").await.ok()??;
    DeliveryCounts::decode(value).ok()
}

/// `None` if the test made no such stream or consumer, or deleted it.
async fn unread_events(jetstream: &jetstream::Context) -> Option<u64> {
    let stream = jetstream.get_stream("EVENTS").await.ok()?;
    let router = stream.consumer_info("router").await.ok()?;
    Some(router.num_pending)
}
