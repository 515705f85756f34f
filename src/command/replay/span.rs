//! The time span of a replay: which events are in it, and whether OUTCOMES covers it.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::{Info, Stream};
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::Event;
use tidings_core::bus::{Bus, streams};
use tidings_core::model::stored_event;
use tidings_core::model::time::to_offset;
use time::OffsetDateTime;

use crate::command::tool::ago;

/// The server sends the next message of a stream within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The events of a time span that the routers have routed.
pub struct Span {
    /// The first event was stored at this time or later.
    pub from: Timestamp,
    to: Timestamp,
    /// Routers have stored all deliveries of the events up to this sequence.
    routed_up_to: u64,
}

impl Span {
    /// Parses the two durations, and reads how far the routers are.
    ///
    /// # Errors
    /// A duration is invalid, the span is empty, or the bus cannot be read.
    pub async fn new(bus: &Bus, since: &str, until: &str) -> anyhow::Result<Self> {
        let from = ago(since).context("--since")?;
        let to = ago(until).context("--until")?;
        ensure!(
            from < to,
            "--since {since}: must be longer ago than --until {until}"
        );
        let events = stream(bus, streams::EVENTS).await?;
        let router = events
            .consumer_info(streams::ROUTER)
            .await
            .context("cannot read the position of the routers; start a router first")?;
        let state = &events.cached_info().state;
        let oldest = to_timestamp(state.first_timestamp)?;
        if state.first_sequence > 1 && oldest > from {
            eprintln!("events before {oldest:.0} are no longer stored");
        }
        Ok(Self {
            from: from.max(oldest),
            to,
            routed_up_to: router.ack_floor.stream_sequence,
        })
    }

    /// The events from one sequence to another, of a replay that goes on. Neither is later than
    /// what the routers had routed when it began.
    ///
    /// # Errors
    /// The first event is no longer stored, or EVENTS cannot be read.
    pub async fn between(bus: &Bus, first: u64, last: u64) -> anyhow::Result<Self> {
        let events = stream(bus, streams::EVENTS).await?;
        let message = events.direct_get(first).await.with_context(|| {
            format!("event {first} of the stream EVENTS cannot be read; start another replay")
        })?;
        Ok(Self {
            from: to_timestamp(message.time)?,
            to: Timestamp::MAX,
            routed_up_to: last,
        })
    }

    /// Checks that OUTCOMES holds the outcomes since the start of the span. Without them, a
    /// delivery that ended looks like a missing one.
    ///
    /// # Errors
    /// It does not, or it cannot be read.
    pub async fn require_outcomes(&self, bus: &Bus) -> anyhow::Result<()> {
        let outcomes = stream(bus, streams::OUTCOMES).await?;
        let Some(since) = complete_since(outcomes.cached_info())? else {
            bail!(
                "the stream OUTCOMES lost its outcomes: without them, deliveries that ended look \
                 like missing ones"
            );
        };
        if since > self.from {
            bail!(
                "the stream OUTCOMES reaches back to {since:.0} only: before that, deliveries \
                 that ended look like missing ones; pass --since with at most {} s",
                Timestamp::now().duration_since(since).as_secs()
            );
        }
        Ok(())
    }

    /// Calls `handle` with each event and its sequence.
    ///
    /// # Errors
    /// EVENTS cannot be read, or `handle` fails.
    pub async fn for_each_event(
        &self,
        bus: &Bus,
        mut handle: impl FnMut(&Event, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (to, routed_up_to) = (self.to, self.routed_up_to);
        for_each_since(bus, streams::EVENTS, self.from, |message| {
            if message.sequence > routed_up_to || message.stored_at >= to {
                return Ok(false);
            }
            // A router refuses the others, too.
            if let Ok(event) = stored_event::read(message.subject, message.payload) {
                handle(&event, message.sequence)?;
            }
            Ok(true)
        })
        .await
    }
}

/// A message of a stream.
pub struct StoredMessage<'a> {
    pub sequence: u64,
    pub stored_at: Timestamp,
    pub subject: &'a str,
    pub payload: &'a [u8],
}

/// Since when a stream holds all its messages: since its creation, or since the first that it has
/// not evicted. `None` if it holds none of them.
fn complete_since(info: &Info) -> anyhow::Result<Option<Timestamp>> {
    let state = &info.state;
    if state.first_sequence <= 1 {
        return to_timestamp(info.created).map(Some);
    }
    match state.messages {
        0 => Ok(None),
        _ => to_timestamp(state.first_timestamp).map(Some),
    }
}

/// Calls `handle` with each message that was stored since a time, until it returns `false` or the
/// last message is read.
///
/// # Errors
/// The stream cannot be read, or `handle` fails.
pub async fn for_each_since(
    bus: &Bus,
    name: &str,
    from: Timestamp,
    mut handle: impl FnMut(StoredMessage<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read the stream {name}");
    let Some(mut messages) = messages_since(bus, name, from).await? else {
        return Ok(());
    };
    loop {
        // What is left may be evicted meanwhile; the consumer would then wait forever.
        let next = tokio::time::timeout(READ_TIMEOUT, messages.next()).await;
        let Ok(Some(message)) = next else {
            bail!("the stream {name} changed while it was read; run the command again")
        };
        let message = message.with_context(unreadable)?;
        let info = message.info().map_err(anyhow::Error::msg)?;
        let stored = StoredMessage {
            sequence: info.stream_sequence,
            stored_at: to_timestamp(info.published)?,
            subject: &message.subject,
            payload: &message.payload,
        };
        if !handle(stored)? || info.pending == 0 {
            return Ok(());
        }
    }
}

/// `None` if the stream holds no such message.
async fn messages_since(bus: &Bus, name: &str, from: Timestamp) -> anyhow::Result<Option<Ordered>> {
    let unreadable = || format!("cannot read the stream {name}");
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartTime {
            start_time: to_offset(from),
        },
        ..OrderedConfig::default()
    };
    let consumer = stream(bus, name).await?.create_consumer(config).await;
    let consumer = consumer.with_context(unreadable)?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(None);
    }
    let messages = consumer.messages().await;
    messages.map(Some).with_context(unreadable)
}

/// Reads an event that must still be stored.
///
/// # Errors
/// It is not, or EVENTS cannot be read.
pub async fn event_at(bus: &Bus, sequence: u64) -> anyhow::Result<Event> {
    let events = bus.jetstream().get_stream_no_info(streams::EVENTS).await?;
    let message = events.direct_get(sequence).await.with_context(|| {
        format!("event {sequence} of the stream EVENTS cannot be read; run the command again")
    })?;
    Ok(stored_event::read(&message.subject, &message.payload)?)
}

async fn stream(bus: &Bus, name: &str) -> anyhow::Result<Stream> {
    let found = bus.jetstream().get_stream(name).await;
    found.with_context(|| format!("stream {name} not found: is Tidings running?"))
}

fn to_timestamp(time: OffsetDateTime) -> anyhow::Result<Timestamp> {
    // The server reports the year 1 for a stream without messages.
    Ok(Timestamp::from_nanosecond(
        time.unix_timestamp_nanos().max(0),
    )?)
}
