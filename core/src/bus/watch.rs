//! Watching the server: is it there, are the streams as they must be, how full is it, what time is
//! it.

use crate::runtime::codes::log as codes;
use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::Config;
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::setup::{SetupError, StreamPolicy, storage_limit};
use crate::bus::storage::{Backlog, Routed};
use crate::bus::streams::{self, Sizing};
use crate::runtime::health::Check;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::StreamLabel;

/// The server is looked at this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// A stream that is not found is looked for again after this long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Looks at the server every second.
pub struct Watch {
    bus: Bus,
    policy: StreamPolicy,
    storage_limit: Option<u64>,
    /// EVENTS and DELIVERIES, which are looked at each time.
    always: Vec<Config>,
    /// The others, of which one is looked at each time.
    in_turn: Vec<Config>,
    /// What is wrong with which stream.
    troubles: BTreeMap<String, String>,
    metrics: Metrics,
}

impl Watch {
    /// Looks at the streams that this process has a policy to.
    pub fn new(bus: Bus, sizing: &Sizing, policy: StreamPolicy, metrics: Metrics) -> Self {
        let is_asked_for =
            |must: &Config| policy != StreamPolicy::Wait || must.name == streams::EVENTS;
        let all = streams::all(sizing).into_iter().filter(is_asked_for);
        let (always, in_turn) = all
            .partition(|must| [streams::EVENTS, streams::DELIVERIES].contains(&must.name.as_str()));
        Self {
            bus,
            policy,
            storage_limit: sizing.storage_limit,
            always,
            in_turn,
            troubles: BTreeMap::new(),
            metrics,
        }
    }

    /// Samples once, so that whoever begins now knows how much room there is, then until `stop`.
    ///
    /// # Guarantees
    /// A stream or bucket that somebody deletes is made anew by routers and workers within seconds;
    /// of one that somebody changes, `check` tells the difference until it is as it must be.
    /// Both are logged.
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
        let seen = self.look().await;
        self.metrics.bus_up.set(seen.is_ok().into());
        let used = self.bus.storage().used();
        self.metrics.bus_storage_used_ratio.set(used);
        for stream in std::mem::take(&mut *self.bus.recreated.lock()) {
            self.metrics
                .bus_streams_recreated_total
                .get_or_create(&StreamLabel { stream })
                .inc();
        }
        match seen {
            Ok(()) => check.succeed(),
            Err(trouble) => check.fail(trouble),
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        if !self.bus.is_connected() {
            return Err("not connected".to_owned());
        }
        for must in self.always.clone() {
            if let Some(info) = self.look_at(&must).await?
                && must.name == streams::EVENTS
            {
                self.bus.sample_storage(&info, self.storage_limit).await?;
            }
        }
        if let Some(must) = self.in_turn.first().cloned() {
            self.in_turn.rotate_left(1);
            self.look_at(&must).await?;
        }
        match self.troubles.is_empty() {
            true => Ok(()),
            false => Err(self
                .troubles
                .values()
                .cloned()
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }

    /// What there is of a stream; what is wrong with it is among the troubles from now on, until it
    /// is mended.
    async fn look_at(&mut self, must: &Config) -> Result<Option<StreamInfo>, String> {
        let mut found = self.bus.find_stream(&must.name).await?;
        let wrong = match &found {
            Some(info) => self
                .bus
                .verify_stream(&info.config, must.clone(), self.policy)
                .await
                .err()
                .map(|error| error.to_string()),
            None if self.policy == StreamPolicy::Wait => Some(format!(
                "stream {} is gone; a router or worker makes it anew",
                must.name
            )),
            None => match self.bus.recreate_stream(must.clone()).await {
                Ok(()) => {
                    found = self.bus.find_stream(&must.name).await?;
                    None
                }
                Err(error) => Some(error.to_string()),
            },
        };
        let known = self.troubles.get(&must.name);
        match wrong {
            Some(wrong) => {
                if known != Some(&wrong) {
                    tracing::error!(
                        code = codes::STREAM_INVALID,
                        stream = must.name,
                        error = wrong,
                        "stream is missing or its configuration differs"
                    );
                }
                self.troubles.insert(must.name.clone(), wrong);
            }
            None => {
                if self.troubles.remove(&must.name).is_some() {
                    tracing::info!(
                        code = codes::STREAM_RECOVERED,
                        stream = must.name,
                        "stream is valid again"
                    );
                }
            }
        }
        Ok(found)
    }
}

impl Bus {
    /// Makes a stream or bucket anew that somebody has deleted.
    ///
    /// # Errors
    /// The server can't make it.
    pub(super) async fn recreate_stream(&self, must: Config) -> Result<(), SetupError> {
        tracing::error!(
            code = codes::STREAM_RECREATED,
            stream = must.name,
            "stream was deleted, recreating it empty; its messages are lost"
        );
        let name = must.name.clone();
        self.create_stream(must).await?;
        self.recreated.lock().push(name);
        Ok(())
    }

    /// Asks for a stream; nothing where there is none. It is asked for twice then: after a change
    /// of leaders a server may not know all of them at once, and making one that is there would
    /// be worse than waiting.
    pub(super) async fn find_stream(&self, name: &str) -> Result<Option<StreamInfo>, String> {
        if let Some(info) = self.ask_for_stream(name).await? {
            return Ok(Some(info));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        self.ask_for_stream(name).await
    }

    /// Asks for a stream that must be there.
    pub(super) async fn stream_info(&self, name: &str) -> Result<StreamInfo, String> {
        self.ask_for_stream(name)
            .await?
            .ok_or_else(|| format!("there is no stream {name}"))
    }

    /// Takes the server's time from the answer, too.
    async fn ask_for_stream(&self, name: &str) -> Result<Option<StreamInfo>, String> {
        use async_nats::jetstream::response::Response;
        let asked = Timestamp::now();
        let answer = self
            .jetstream()
            .request(format!("STREAM.INFO.{name}"), &())
            .await;
        match answer.map_err(|error| format!("no answer about stream {name}: {error}"))? {
            Response::Ok::<StreamInfo>(info) => {
                self.clock().sample(info.ts, asked, Timestamp::now());
                Ok(Some(info))
            }
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            Response::Err { error } => Err(format!("stream {name}: {error}")),
        }
    }

    async fn sample_storage(&self, events: &StreamInfo, limit: Option<u64>) -> Result<(), String> {
        let account = self
            .jetstream()
            .query_account()
            .await
            .map_err(|error| error.to_string())?;
        self.storage().note_used(
            account.storage,
            storage_limit(account.limits.max_storage, limit),
        );
        let routed_up_to = self.routed_up_to(events).await;
        let oldest_unrouted = self.age_of(routed_up_to + 1, events.state.last_seq).await;
        self.storage().note_backlog(&Backlog {
            messages: events.state.messages,
            bytes: events.state.bytes,
            max_bytes: u64::try_from(events.config.max_bytes).unwrap_or(0),
            last_sequence: events.state.last_seq,
            routed_up_to,
            oldest_unrouted,
            max_age: events.config.max_age,
        });
        Ok(())
    }

    /// Before there is a router, nothing is routed.
    async fn routed_up_to(&self, events: &StreamInfo) -> u64 {
        let before_first = events.state.first_seq.saturating_sub(1);
        let Ok(stream) = self.jetstream().get_stream_no_info(streams::EVENTS).await else {
            return before_first;
        };
        let Ok(info) = stream.consumer_info(streams::ROUTER).await else {
            return before_first;
        };
        let up_to = info.ack_floor.stream_sequence.max(before_first);
        self.storage().note_routed(Routed {
            stream_created: events.created,
            up_to,
        });
        up_to
    }

    /// How old the message with this sequence is; zero where there is none.
    async fn age_of(&self, sequence: u64, last: u64) -> Duration {
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
        Duration::try_from(self.clock().now().duration_since(stored)).unwrap_or_default()
    }
}

/// What the server says of a stream; the client's own type leaves out the time.
#[derive(Deserialize)]
pub(super) struct StreamInfo {
    ts: Timestamp,
    pub(super) created: Timestamp,
    config: Config,
    state: StreamState,
}

impl StreamInfo {
    pub(super) fn last_sequence(&self) -> u64 {
        self.state.last_seq
    }
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}
