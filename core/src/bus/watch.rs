//! Watches the server: the connection, the streams, the storage and the server's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, StorageType};
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::bus::events_state::{Reporter, to_state};
use crate::bus::later_events::EventsStream;
use crate::bus::setup::{SetupError, StreamPolicy, storage_limit};
use crate::bus::storage::Backlog;
use crate::bus::streams::{self, Sizing};
use crate::bus::{Bus, BusError};
use crate::model::time;
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::StreamLabel;
use crate::wire::EventsState;

/// How often the server is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The pause before a second request for a stream that was not found.
const SECOND_REQUEST_AFTER: Duration = Duration::from_millis(500);

/// Samples the server every second.
pub struct Watch {
    bus: Bus,
    policy: StreamPolicy,
    storage_limit: Option<u64>,
    /// The streams that every sample checks: EVENTS and DELIVERIES.
    always: Vec<Config>,
    /// The other streams, of which each sample checks one.
    in_turn: Vec<Config>,
    /// The errors, by stream.
    failures: BTreeMap<String, String>,
    reporter: Reporter,
    metrics: Metrics,
}

impl Watch {
    /// Creates a watch of the streams that this process uses.
    pub fn new(bus: Bus, sizing: &Sizing, policy: StreamPolicy, metrics: Metrics) -> Self {
        let is_used =
            |expected: &Config| policy != StreamPolicy::Wait || expected.name == streams::EVENTS;
        let all = streams::all(sizing).into_iter().filter(is_used);
        let (always, in_turn) = all.partition(|expected| {
            [streams::EVENTS, streams::DELIVERIES].contains(&expected.name.as_str())
        });
        Self {
            bus,
            policy,
            storage_limit: sizing.storage_limit,
            always,
            in_turn,
            failures: BTreeMap::new(),
            reporter: Reporter::default(),
            metrics,
        }
    }

    /// Samples once, so that the role starts with a known use of the storage. Then samples in the
    /// background until `stop`.
    ///
    /// # Guarantees
    /// Routers and workers recreate a deleted stream or bucket within seconds. While the
    /// configuration of a stream differs, `check` fails with the difference. Both are logged.
    pub async fn start(mut self, check: Check, stop: CancellationToken) {
        self.sample(&check).await;
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + SAMPLE_EVERY, SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::spawn(async move {
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                stop.run_until_cancelled(self.sample(&check)).await;
            }
        });
    }

    async fn sample(&mut self, check: &Check) {
        let result = self.check_streams().await;
        self.metrics.bus_up.set(result.is_ok().into());
        let used = self.bus.storage().used();
        self.metrics.bus_storage_used_ratio.set(used);
        for stream in std::mem::take(&mut *self.bus.recreated.lock()) {
            self.metrics
                .bus_streams_recreated_total
                .get_or_create(&StreamLabel { stream })
                .inc();
        }
        match result {
            Ok(()) => check.succeed(),
            Err(trouble) => check.fail(trouble),
        }
    }

    async fn check_streams(&mut self) -> Result<(), String> {
        if !self.bus.is_connected() {
            return Err("not connected".to_owned());
        }
        for expected in self.always.clone() {
            if let Some(info) = self.check_stream(&expected).await?
                && expected.name == streams::EVENTS
            {
                let state = self.bus.sample_storage(&info, self.storage_limit).await?;
                // The server of `up` has no members.
                if self.policy == StreamPolicy::Verify
                    && !self.reporter.report(&self.bus, state).await
                {
                    self.check_next(streams::HUB);
                }
            }
        }
        if let Some(expected) = self.in_turn.first().cloned() {
            self.in_turn.rotate_left(1);
            self.check_stream(&expected).await?;
        }
        match self.failures.is_empty() {
            true => Ok(()),
            false => Err(self
                .failures
                .values()
                .cloned()
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }

    /// Checks a bucket before the others. A server that restarts loses those in memory.
    fn check_next(&mut self, bucket: &str) {
        let stream = format!("KV_{bucket}");
        let is_it = |expected: &Config| expected.name == stream;
        if let Some(at) = self.in_turn.iter().position(is_it) {
            self.in_turn[..=at].rotate_right(1);
        }
    }

    /// Checks a stream and returns its state. An error stays in `failures` until it is fixed.
    async fn check_stream(&mut self, expected: &Config) -> Result<Option<StreamInfo>, String> {
        let mut found = self.bus.find_stream(&expected.name).await?;
        let wrong = match &found {
            Some(info) => self
                .bus
                .verify_stream(&info.config, expected.clone(), self.policy)
                .await
                .err()
                .map(|error| error.to_string()),
            None if self.policy == StreamPolicy::Wait => Some(format!(
                "stream {} does not exist; a router or worker recreates it",
                expected.name
            )),
            None => match self.bus.recreate_stream(expected.clone()).await {
                Ok(()) => {
                    found = self.bus.find_stream(&expected.name).await?;
                    None
                }
                Err(error) => Some(error.to_string()),
            },
        };
        let before = self.failures.get(&expected.name);
        match wrong {
            Some(wrong) => {
                if before != Some(&wrong) {
                    tracing::error!(
                        code = codes::STREAM_INVALID,
                        stream = expected.name,
                        error = wrong,
                        "stream is missing or its configuration differs"
                    );
                }
                self.failures.insert(expected.name.clone(), wrong);
            }
            None => {
                if self.failures.remove(&expected.name).is_some() {
                    tracing::info!(
                        code = codes::STREAM_RECOVERED,
                        stream = expected.name,
                        "stream is valid again"
                    );
                }
            }
        }
        Ok(found)
    }
}

impl Bus {
    /// Recreates a deleted stream or bucket.
    ///
    /// # Errors
    /// The server refuses.
    pub(super) async fn recreate_stream(&self, expected: Config) -> Result<(), SetupError> {
        if expected.storage == StorageType::Memory {
            tracing::info!(
                code = codes::MEMORY_STREAM_RECREATED,
                stream = expected.name,
                "stream in memory is gone, recreating it"
            );
            return self.create_stream(expected).await.map(drop);
        }
        tracing::error!(
            code = codes::STREAM_RECREATED,
            stream = expected.name,
            "stream was deleted, recreating it empty; its messages are lost"
        );
        let name = expected.name.clone();
        self.create_stream(expected).await?;
        self.recreated.lock().push(name);
        Ok(())
    }

    /// Reads the state of a stream, `None` if it does not exist. A missing stream is requested
    /// twice, because a new leader of the NATS cluster may not know all streams at once.
    pub(super) async fn find_stream(&self, name: &str) -> Result<Option<StreamInfo>, String> {
        if let Some(info) = self.request_stream(name).await? {
            return Ok(Some(info));
        }
        tokio::time::sleep(SECOND_REQUEST_AFTER).await;
        self.request_stream(name).await
    }

    /// Samples the server's clock, for a tool that has no watch.
    ///
    /// # Errors
    /// The bus is unavailable, or EVENTS does not exist.
    pub async fn sample_clock(&self) -> Result<(), BusError> {
        let info = self.stream_info(streams::EVENTS).await;
        info.map(drop).map_err(BusError::Unavailable)
    }

    /// Reads the state of a stream that must exist.
    pub(super) async fn stream_info(&self, name: &str) -> Result<StreamInfo, String> {
        self.request_stream(name)
            .await?
            .ok_or_else(|| format!("stream {name} does not exist"))
    }

    /// The response also holds the server's time, which is sampled here.
    pub(super) async fn request_stream(&self, name: &str) -> Result<Option<StreamInfo>, String> {
        use async_nats::jetstream::response::Response;
        let requested = self.clock().own();
        let response = self
            .jetstream()
            .request(format!("STREAM.INFO.{name}"), &())
            .await;
        match response
            .map_err(|error| format!("cannot read the state of stream {name}: {error}"))?
        {
            Response::Ok::<StreamInfo>(info) => {
                let received = self.clock().own();
                self.clock().sample(info.ts, requested, received);
                Ok(Some(info))
            }
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            Response::Err { error } => Err(format!("stream {name}: {error}")),
        }
    }

    async fn sample_storage(
        &self,
        events: &StreamInfo,
        limit: Option<u64>,
    ) -> Result<EventsState, String> {
        let account = self
            .jetstream()
            .query_account()
            .await
            .map_err(|error| error.to_string())?;
        let limit = storage_limit(account.limits.max_storage, limit);
        self.storage().note_used(account.storage, limit);
        let routed_up_to = self.routed_up_to(events).await;
        let oldest_unrouted = self.age_of(routed_up_to + 1, events.state.last_seq).await;
        let backlog = Backlog {
            messages: events.state.messages,
            bytes: events.state.bytes,
            max_bytes: u64::try_from(events.config.max_bytes).unwrap_or(0),
            last_sequence: events.state.last_seq,
            routed_up_to,
            oldest_unrouted,
            max_age: events.config.max_age,
        };
        self.storage().note_backlog(&backlog);
        let stream = EventsStream {
            created: events.created,
            dedupe_interval: events.config.duplicate_window,
        };
        let write_error = self.storage().events_write_error();
        Ok(to_state(
            stream,
            &backlog,
            (account.storage, limit),
            write_error,
        ))
    }

    /// The last routed sequence. Without a router consumer, or with one that lost its state, no
    /// event counts as routed.
    async fn routed_up_to(&self, events: &StreamInfo) -> u64 {
        let before_first = events.state.first_seq.saturating_sub(1);
        let Ok(stream) = self.jetstream().get_stream_no_info(streams::EVENTS).await else {
            return before_first;
        };
        let Ok(info) = stream.consumer_info(streams::ROUTER).await else {
            return before_first;
        };
        info.ack_floor.stream_sequence.max(before_first)
    }

    /// The age of the event with this sequence. Zero if it does not exist.
    pub(super) async fn age_of(&self, sequence: u64, last: u64) -> Duration {
        if sequence > last {
            return Duration::ZERO;
        }
        let Ok(stream) = self.jetstream().get_stream_no_info(streams::EVENTS).await else {
            return Duration::ZERO;
        };
        let Ok(message) = stream.direct_get(sequence).await else {
            return Duration::ZERO;
        };
        let stored =
            Timestamp::from_second(message.time.unix_timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
        time::between(stored, self.clock().now())
    }
}

/// The state of a stream. The client's own type lacks the server's time.
#[derive(Deserialize)]
pub(super) struct StreamInfo {
    ts: Timestamp,
    pub(super) created: Timestamp,
    pub(super) config: Config,
    state: StreamState,
}

impl StreamInfo {
    pub(super) fn first_sequence(&self) -> u64 {
        self.state.first_seq
    }

    pub(super) fn messages(&self) -> u64 {
        self.state.messages
    }

    /// The stored bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.state.last_seq
    }

    /// The number of deleted messages between the first and the last one.
    pub(super) fn deleted(&self) -> u64 {
        self.state.num_deleted
    }
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(default)]
    num_deleted: u64,
}
