//! Making sure that streams and buckets are on the server as they must be, and watching that they stay so.

use std::time::Duration;

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::{kv, stream as nats_stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::bus::storage::{Backlog, Routed};
use crate::bus::{Bus, STORAGE_RESOURCES_EXCEEDED};
use crate::health::Check;
use crate::metrics::Metrics;
use crate::stream::{self, Sizing};

/// The server is looked at this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// No stream that discards is made smaller than this.
const SMALLEST_LIMIT: i64 = 16 << 20;
/// Records end this long after their last write.
const RECORDS_END_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// A delivery that ends processes does so again at once, or not at all.
const SUSPICIONS_END_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What to do with a stream that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Refuse to start, with the difference.
    Refuse,
    /// Change the stream.
    Change,
}

/// Why the streams can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server could not be asked; it may pass.
    #[error("cannot use stream {stream}: {cause}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// Why not.
        cause: String,
    },
    /// A stream is not as it must be.
    #[error("stream {stream} is not as it must be: {difference}; `tidings streams apply` changes it")]
    Differs {
        /// The stream.
        stream: String,
        /// Field by field.
        difference: String,
    },
}

impl Bus {
    /// Makes streams and buckets that are missing, and checks or changes those that are there.
    ///
    /// # Errors
    /// The server can't be asked, or a stream differs and is not to be changed.
    pub async fn set_up(&self, sizing: &Sizing, mismatch: Mismatch) -> Result<(), SetupError> {
        for must in stream::all(sizing) {
            self.set_up_stream(must, mismatch).await?;
        }
        let latest = kv::Config {
            bucket: stream::LATEST.to_owned(),
            description: "The newest state of each key, as asked for and as posted".to_owned(),
            max_age: RECORDS_END_AFTER,
            ..bucket(sizing)
        };
        self.set_up_bucket(latest).await?;
        // Without an end: a Provider that is paused stays paused.
        let limits = kv::Config {
            bucket: stream::LIMITS.to_owned(),
            description: "What all workers must know before they call a destination".to_owned(),
            ..bucket(sizing)
        };
        self.set_up_bucket(limits).await?;
        let suspects = kv::Config {
            bucket: stream::SUSPECTS.to_owned(),
            description: "How many processes have ended while they attempted a delivery alone".to_owned(),
            max_age: SUSPICIONS_END_AFTER,
            ..bucket(sizing)
        };
        self.set_up_bucket(suspects).await
    }

    /// Looks for EVENTS without making it, as ingest does.
    ///
    /// # Errors
    /// It is not there yet, or the server can't be asked.
    pub async fn find_events(&self, sizing: &Sizing) -> Result<(), SetupError> {
        let unavailable = |cause: String| SetupError::Unavailable { stream: stream::EVENTS.to_owned(), cause };
        let found = self.jetstream().get_stream(stream::EVENTS).await.map_err(|error| unavailable(error.to_string()))?;
        let window = found.cached_info().config.duplicate_window;
        if window != sizing.dedupe_interval {
            tracing::warn!(?window, asked = ?sizing.dedupe_interval, "the dedupe interval is that of the stream EVENTS: router and worker set it");
        }
        Ok(())
    }

    async fn set_up_stream(&self, must: nats_stream::Config, mismatch: Mismatch) -> Result<(), SetupError> {
        let unavailable = |cause: String| SetupError::Unavailable { stream: must.name.clone(), cause };
        // An equal stream is left as it is; a different one is an error here.
        let is = match self.jetstream().get_stream(&must.name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(_) => self.make_stream(must.clone()).await.map_err(unavailable)?,
        };
        let differences = stream::differences(&is, &must);
        if differences.is_empty() {
            return Ok(());
        }
        if mismatch == Mismatch::Refuse {
            return Err(SetupError::Differs { stream: must.name.clone(), difference: differences.join("; ") });
        }
        let changed = self.jetstream().update_stream(must.clone()).await;
        changed.map(|_| ()).map_err(|error| unavailable(error.to_string()))
    }

    /// Makes a stream; where the server has less room than it would like, with a smaller limit.
    async fn make_stream(&self, mut must: nats_stream::Config) -> Result<nats_stream::Config, String> {
        loop {
            let error = match self.jetstream().create_stream(must.clone()).await {
                Ok(stream) => return Ok(stream.cached_info().config.clone()),
                Err(error) => error,
            };
            let is_too_large = matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == STORAGE_RESOURCES_EXCEEDED);
            if !is_too_large || must.max_bytes / 4 < SMALLEST_LIMIT {
                return Err(error.to_string());
            }
            // A quarter, so that there is room left for the others.
            must.max_bytes /= 4;
            tracing::warn!(
                stream = must.name,
                max_bytes = must.max_bytes,
                "the server has little room: the stream gets a smaller limit"
            );
        }
    }

    async fn set_up_bucket(&self, must: kv::Config) -> Result<(), SetupError> {
        let stream = format!("KV_{}", must.bucket);
        if self.jetstream().get_key_value(&must.bucket).await.is_ok() {
            return Ok(());
        }
        let made = self.jetstream().create_key_value(must).await;
        made.map(|_| ()).map_err(|error| SetupError::Unavailable { stream, cause: error.to_string() })
    }

    /// Samples the server every second until `stop`: is it there, are the streams, how full is it, what time is it.
    pub async fn watch(&self, storage_limit: Option<u64>, check: Check, metrics: Metrics, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match stop.run_until_cancelled(self.sample(storage_limit)).await {
                Some(Ok(())) => {
                    check.succeed();
                    metrics.bus_up.set(1);
                }
                Some(Err(trouble)) => {
                    check.fail(trouble);
                    metrics.bus_up.set(0);
                }
                None => return,
            }
            metrics.storage_used.set(self.storage().used());
        }
    }

    async fn sample(&self, storage_limit: Option<u64>) -> Result<(), String> {
        if !self.is_connected() {
            return Err("not connected".to_owned());
        }
        let events = self.stream_info(stream::EVENTS).await?;
        self.stream_info(stream::DELIVERIES).await?;
        let account = self.jetstream().query_account().await.map_err(|error| error.to_string())?;
        let account_limit = account.limits.max_storage.and_then(|limit| u64::try_from(limit).ok());
        self.storage().note_used(account.storage, account_limit.or(storage_limit));
        let routed_up_to = self.routed_up_to(&events).await;
        let oldest_unrouted = self.age_of(routed_up_to + 1, events.state.last_seq).await;
        self.storage().note_backlog(&Backlog {
            messages: events.state.messages,
            bytes: events.state.bytes,
            max_bytes: u64::try_from(events.config.max_bytes).unwrap_or(0),
            last_sequence: events.state.last_seq,
            routed_up_to,
            oldest_unrouted,
            max_age: Duration::from_nanos(events.config.max_age),
        });
        Ok(())
    }

    /// Asks for a stream, and takes the server's time from the answer.
    pub(super) async fn stream_info(&self, name: &str) -> Result<StreamInfo, String> {
        use async_nats::jetstream::response::Response;
        let asked = Timestamp::now();
        let answer = self.jetstream().request(format!("STREAM.INFO.{name}"), &()).await;
        match answer.map_err(|error| format!("no answer about stream {name}: {error}"))? {
            Response::Ok::<StreamInfo>(info) => {
                self.clock().sample(info.ts, asked, Timestamp::now());
                Ok(info)
            }
            Response::Err { error } => Err(format!("stream {name}: {error}")),
        }
    }

    /// Before there is a router, nothing is routed.
    async fn routed_up_to(&self, events: &StreamInfo) -> u64 {
        let before_first = events.state.first_seq.saturating_sub(1);
        let Ok(stream) = self.jetstream().get_stream_no_info(stream::EVENTS).await else {
            return before_first;
        };
        let Ok(info) = stream.consumer_info(stream::ROUTER).await else {
            return before_first;
        };
        let up_to = info.ack_floor.stream_sequence.max(before_first);
        self.storage().note_routed(Routed { stream_created: events.created, up_to });
        up_to
    }

    /// How old the message with this sequence is; zero where there is none.
    async fn age_of(&self, sequence: u64, last: u64) -> Duration {
        if sequence > last {
            return Duration::ZERO;
        }
        let Ok(stream) = self.jetstream().get_stream_no_info(stream::EVENTS).await else {
            return Duration::ZERO;
        };
        let Ok(message) = stream.direct_get(sequence).await else {
            return Duration::ZERO;
        };
        let stored = Timestamp::from_second(message.time.unix_timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
        Duration::try_from(self.clock().now().duration_since(stored)).unwrap_or_default()
    }
}

fn bucket(sizing: &Sizing) -> kv::Config {
    kv::Config { history: 1, num_replicas: sizing.replicas, ..kv::Config::default() }
}

/// What the server says of a stream; the client's own type leaves out the time.
#[derive(Deserialize)]
pub(super) struct StreamInfo {
    ts: Timestamp,
    pub(super) created: Timestamp,
    config: StreamConfig,
    state: StreamState,
}

impl StreamInfo {
    pub(super) fn last_sequence(&self) -> u64 {
        self.state.last_seq
    }
}

#[derive(Deserialize)]
struct StreamConfig {
    max_bytes: i64,
    max_age: u64,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}
