//! Reading a stream from where its news is not reflected yet, as long as we lead.

use std::time::Duration;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where nobody knows how far the last reader came: older outcomes are of little use, and an API
/// server forgets Events after an hour.
const LOOK_BACK: Duration = Duration::from_secs(3600);
/// Between attempts to read a stream.
const PAUSE: Duration = Duration::from_secs(1);

/// A message of a stream.
pub(super) struct Read {
    /// Its sequence in the stream.
    pub(super) sequence: u64,
    /// When the server stored it.
    pub(super) stored: Timestamp,
    /// What it holds.
    pub(super) payload: Bytes,
}

/// Reads a stream from the sequence `from`, else from an hour ago, until `over`.
///
/// # Guarantees
/// Each message once and in order; after trouble it goes on where it was. A slow receiver slows the
/// reading down.
pub(super) async fn follow(
    bus: &Bus,
    stream: &'static str,
    mut from: Option<u64>,
    send: mpsc::Sender<Read>,
    over: CancellationToken,
) {
    while !over.is_cancelled() {
        let trouble = tokio::select! {
            () = over.cancelled() => return,
            ended = follow_until_trouble(bus, stream, &mut from, &send) => ended.err().unwrap_or_else(|| "it ended".into()),
        };
        tracing::warn!(code = codes::STATUS_SOURCE_FAILED, stream, %trouble, "cannot read the stream for object status, retrying");
        let _ = over
            .run_until_cancelled(tokio::time::sleep(jitter(PAUSE)))
            .await;
    }
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn follow_until_trouble(
    bus: &Bus,
    stream: &'static str,
    from: &mut Option<u64>,
    send: &mpsc::Sender<Read>,
) -> Result<(), Trouble> {
    let mut stream = bus.jetstream().get_stream(stream).await?;
    // A stream that was made anew counts from 1.
    let last = stream.info().await?.state.last_sequence;
    *from = from.filter(|from| *from <= last + 1);
    let deliver_policy = match *from {
        Some(from) => DeliverPolicy::ByStartSequence {
            start_sequence: from.max(1),
        },
        None => DeliverPolicy::ByStartTime {
            start_time: time::OffsetDateTime::now_utc() - LOOK_BACK,
        },
    };
    let config = OrderedConfig {
        deliver_policy,
        ..OrderedConfig::default()
    };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let info = message.info()?;
        let (sequence, stored) = (info.stream_sequence, info.published.unix_timestamp_nanos());
        let stored = Timestamp::from_nanosecond(stored)?;
        if send
            .send(Read {
                sequence,
                stored,
                payload: message.payload.clone(),
            })
            .await
            .is_err()
        {
            return Ok(());
        }
        *from = Some(sequence + 1);
    }
    Ok(())
}
