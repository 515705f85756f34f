//! Reads the messages of a span: first new ones for as long as the span lasts, then what is stored.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::{Bus, streams};
use tokio::time::{Instant, timeout, timeout_at};

use super::span::{Span, after};

/// The server sends the next stored message within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A wait that never ends.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
const UNREADABLE: &str = "cannot read the stream EVENTS";

/// A message, and where it is.
struct Read {
    message: Message,
    sequence: u64,
    stored_at: Timestamp,
    /// The number of messages that follow it.
    pending: u64,
}

/// Calls `handle` with each message of the span, in order, until it breaks.
///
/// # Errors
/// The stream EVENTS does not exist or cannot be read, or `handle` fails.
pub async fn read(
    bus: &Bus,
    filter: String,
    span: &Span,
    mut handle: impl FnMut(&Message) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let found = bus.jetstream().get_stream(streams::EVENTS).await;
    let events = found.context("stream EVENTS not found: is Tidings running?")?;
    let now = Timestamp::now();
    let mut start = span.start(events.cached_info().state.last_sequence, now)?;
    if span.awaits_events(now) {
        let end = span.until.map_or(FAR, |until| {
            Duration::try_from(until.duration_since(now)).unwrap_or(FAR)
        });
        let end = Instant::now() + end;
        let (_, mut messages) = messages(&events, &filter, start).await?;
        while let Ok(next) = timeout_at(end, messages.next()).await {
            let Some(message) = next else { return Ok(()) };
            let read = Read::of(message.context(UNREADABLE)?)?;
            if span.ends_before(read.stored_at) || handle(&read.message)?.is_break() {
                return Ok(());
            }
            start = after(read.sequence);
        }
    }
    // Events that were stored just before the end may not have arrived.
    read_stored(&events, filter, start, |read| {
        if span.ends_before(read.stored_at) {
            return Ok(ControlFlow::Break(()));
        }
        handle(&read.message)
    })
    .await
}

/// Calls `handle` with each message that is stored now.
async fn read_stored(
    events: &Stream,
    filter: String,
    start: DeliverPolicy,
    mut handle: impl FnMut(&Read) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let last = events.get_info().await.context(UNREADABLE)?;
    let last = last.state.last_sequence;
    let (waiting, mut messages) = messages(events, &filter, start).await?;
    if waiting == 0 {
        return Ok(());
    }
    loop {
        // What is left may be evicted meanwhile; the consumer would then wait forever.
        let Ok(Some(message)) = timeout(READ_TIMEOUT, messages.next()).await else {
            bail!("the stream EVENTS changed while it was read; run the command again")
        };
        let read = Read::of(message.context(UNREADABLE)?)?;
        if read.sequence > last || handle(&read)?.is_break() {
            return Ok(());
        }
        if read.pending == 0 || read.sequence == last {
            return Ok(());
        }
    }
}

/// The messages from `start` on, and how many of them are stored now.
async fn messages(
    events: &Stream,
    filter: &str,
    start: DeliverPolicy,
) -> anyhow::Result<(u64, Ordered)> {
    let config = OrderedConfig {
        deliver_policy: start,
        filter_subject: filter.to_owned(),
        ..OrderedConfig::default()
    };
    let consumer = events.create_consumer(config).await.context(UNREADABLE)?;
    let waiting = consumer.cached_info().num_pending;
    let messages = consumer.messages().await.context(UNREADABLE)?;
    Ok((waiting, messages))
}

impl Read {
    fn of(message: Message) -> anyhow::Result<Self> {
        let info = message.info().map_err(anyhow::Error::msg)?;
        Ok(Self {
            sequence: info.stream_sequence,
            stored_at: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos())?,
            pending: info.pending,
            message,
        })
    }
}
