//! Reads a stream from the saved position while this replica leads.

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How far back reading starts without a saved position. Older outcomes are of little use, and an
/// API server deletes Events after an hour.
const LOOK_BACK: Duration = Duration::from_secs(3600);
/// The longest pause before reading is retried.
const PAUSE: Duration = Duration::from_secs(1);

/// A message of a stream.
pub(super) struct StreamMessage {
    /// Its sequence in the stream.
    pub(super) sequence: u64,
    /// When the server stored it.
    pub(super) stored: Timestamp,
    /// The encoded message.
    pub(super) payload: Bytes,
}

/// Reads a stream from the sequence `from` until `stop`. Without `from`, starts an hour ago.
///
/// # Guarantees
/// Sends each message once and in order. Resumes after an error. Waits for a slow receiver.
pub(super) async fn read_stream(
    bus: &Bus,
    stream: &'static str,
    mut from: Option<u64>,
    send: mpsc::Sender<StreamMessage>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let error = tokio::select! {
            () = stop.cancelled() => return,
            result = read_until_error(bus, stream, &mut from, &send) => result
                .err()
                .unwrap_or_else(|| "the consumer ended".into()),
        };
        tracing::warn!(
            code = codes::STATUS_SOURCE_FAILED,
            stream,
            %error,
            "cannot read the stream for object status, retrying"
        );
        let _ = stop
            .run_until_cancelled(tokio::time::sleep(jitter(PAUSE)))
            .await;
    }
}

type ReadError = Box<dyn std::error::Error + Send + Sync>;

async fn read_until_error(
    bus: &Bus,
    stream: &'static str,
    from: &mut Option<u64>,
    send: &mpsc::Sender<StreamMessage>,
) -> Result<(), ReadError> {
    let mut stream = bus.jetstream().get_stream(stream).await?;
    // The sequences of a recreated stream start at 1.
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
            .send(StreamMessage {
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
