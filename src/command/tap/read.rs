//! Reads the messages of a span: first new ones for as long as the span lasts, then what is stored.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tokio::time::{Instant, timeout, timeout_at};

use super::source::Source;
use super::span::{Span, after};

/// The server sends the next stored message within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A wait that never ends.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

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
    let source = Source::open(bus).await?;
    let filter = source.filter(filter)?;
    let now = Timestamp::now();
    let mut start = source.start(span, now);
    if span.awaits_events(now) {
        let end = span.until.map_or(FAR, |until| {
            Duration::try_from(until.duration_since(now)).unwrap_or(FAR)
        });
        let end = Instant::now() + end;
        let (_, mut messages) = source.messages(&filter, start).await?;
        while let Ok(next) = timeout_at(end, messages.next()).await {
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    messages = source.resume(&filter, start, error).await?;
                    continue;
                }
                None => return Ok(()),
            };
            let read = Read::of(message)?;
            if span.ends_before(read.stored_at) || handle(&read.message)?.is_break() {
                return Ok(());
            }
            start = after(read.sequence);
        }
    }
    // Events that were stored just before the end may not have arrived.
    read_stored(&source, &filter, start, |read| {
        if span.ends_before(read.stored_at) {
            return Ok(ControlFlow::Break(()));
        }
        handle(&read.message)
    })
    .await
}

/// Calls `handle` with each message that is stored now.
async fn read_stored(
    source: &Source,
    filter: &str,
    start: DeliverPolicy,
    mut handle: impl FnMut(&Read) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let last = source.last_sequence().await?;
    let (waiting, mut messages) = source.messages(filter, start).await?;
    // Without the last sequence, the number of messages that were stored at first is the limit.
    for left in (0..waiting).rev() {
        // What is left may be evicted meanwhile; the consumer would then wait forever.
        let Ok(Some(message)) = timeout(READ_TIMEOUT, messages.next()).await else {
            bail!("the stream EVENTS changed while it was read; run the command again")
        };
        let read = Read::of(message?)?;
        if last.is_some_and(|last| read.sequence > last) || handle(&read)?.is_break() {
            return Ok(());
        }
        if read.pending == 0 || left == 0 || Some(read.sequence) == last {
            return Ok(());
        }
    }
    Ok(())
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
