//! Checks that the server can write, not only that it answers.
//!
//! nats-server keeps the first write error of a stream until it restarts, and then does not confirm
//! what is published there. Two questions find out, and store no event:
//!
//! - The deletion of a message that cannot exist. A stream with a write error answers with that
//!   error, without looking for the message. A bucket forbids deletions, but answers in the same
//!   way if a key that cannot exist is purged.
//! - A message to the stream `CHECKS`, which finds a full disk before an event does. If this stream
//!   has a write error, it is recreated when there is room again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, PublishErrorKind, RequestErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::setup::StreamPolicy;
use crate::bus::streams::{self, CHECKS, DELIVERIES, EVENTS, Sizing};
use crate::model::access::API;
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;

mod answer;

use answer::{Answer, of_error};

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often a message is stored in CHECKS.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// A stream that does not answer is not asked again before this time: the permission may be
/// missing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(120);
/// Larger than a block of a file system, whose rest may have room on a full disk.
const PAYLOAD: Bytes = Bytes::from_static(&[b'.'; 8 << 10]);
/// The number of answers in a row that must be missing. One may be late, as during the election of
/// a leader.
const MAX_MISSING: u32 = 3;
/// The key of an error that concerns all streams.
const SERVER: &str = "JetStream";

/// Checks every second whether the server can write.
pub struct WriteCheck {
    bus: Bus,
    /// Whether this process stores messages in CHECKS.
    writes: bool,
    checks: Config,
    /// The streams that every round asks.
    always: Vec<String>,
    /// The other streams, of which each round asks one.
    in_turn: Vec<String>,
    /// Whether a single server keeps each stream. Replicas have no write errors that last.
    is_single: bool,
    advice: &'static str,
    failures: BTreeMap<String, String>,
    /// When a stream that did not answer is asked again.
    silent: BTreeMap<String, Instant>,
    wrote: Option<Instant>,
    unconfirmed: u32,
    unavailable: u32,
    pace: LogPace,
}

impl WriteCheck {
    /// Checks the streams that this process uses.
    pub fn new(bus: Bus, sizing: &Sizing, policy: StreamPolicy) -> Self {
        let writes = policy != StreamPolicy::Wait;
        let names = streams::all(sizing).into_iter().map(|stream| stream.name);
        let used = names.filter(|name| writes || name == EVENTS);
        let (mut always, in_turn): (Vec<_>, _) =
            used.partition(|name| [EVENTS, DELIVERIES].contains(&name.as_str()));
        if !writes {
            always.push(CHECKS.to_owned());
        }
        // Only `up` with its own server updates streams while it runs.
        let advice = match policy {
            StreamPolicy::Update => {
                "free space on the disk of the data folder; `tidings up` then restarts its \
                 nats-server"
            }
            _ => {
                "free space on the disk of the NATS server, then restart the server: it keeps a \
                 write error until then"
            }
        };
        Self {
            bus,
            writes,
            checks: streams::checks(sizing),
            always,
            in_turn,
            is_single: sizing.replicas == 1,
            advice,
            failures: BTreeMap::new(),
            silent: BTreeMap::new(),
            wrote: None,
            unconfirmed: 0,
            unavailable: 0,
            pace: LogPace::default(),
        }
    }

    /// Checks the server of an edge.
    pub fn of_edge(bus: Bus, sizing: &Sizing) -> Self {
        let [position, events] = streams::edge(sizing);
        Self {
            always: vec![events.name],
            in_turn: vec![position.name],
            advice: "free space on the disk of the data folder; `tidings ingest --edge` then \
                     restarts its nats-server",
            ..Self::new(bus, sizing, StreamPolicy::Update)
        }
    }

    /// Checks once, then in the background until `stop`. While the server cannot write, `check`
    /// fails, and [`crate::bus::storage::Storage`] knows the errors.
    pub async fn start(mut self, check: Check, stop: CancellationToken) {
        // Ingest need not know the setting `nats.replicas`.
        if let Ok(events) = self.bus.stream_info(EVENTS).await {
            self.is_single = events.config.num_replicas <= 1;
        }
        self.round(&check).await;
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::spawn(async move {
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                stop.run_until_cancelled(self.round(&check)).await;
            }
        });
    }

    async fn round(&mut self, check: &Check) {
        // The connection has a check of its own.
        if !self.bus.is_connected() {
            self.silent.clear();
            return;
        }
        for stream in self.always.clone() {
            self.ask(&stream).await;
        }
        if let Some(stream) = self.in_turn.first().cloned() {
            self.in_turn.rotate_left(1);
            self.ask(&stream).await;
        }
        let is_due = self
            .wrote
            .is_none_or(|wrote| wrote.elapsed() >= WRITE_EVERY);
        if self.writes && is_due {
            self.wrote = Some(Instant::now());
            self.write().await;
        }
        self.report(check);
    }

    /// Asks a stream for its write error.
    async fn ask(&mut self, stream: &str) {
        let is_silent = |until: &Instant| *until > Instant::now();
        if !self.is_single || self.silent.get(stream).is_some_and(is_silent) {
            return;
        }
        let answer = self.bus.write_error(stream).await;
        self.unavailable = match answer {
            Answer::NoJetStream => self.unavailable + 1,
            _ => 0,
        };
        match answer {
            Answer::Writable => drop(self.failures.remove(stream)),
            Answer::Failed(error) => drop(self.failures.insert(stream.to_owned(), error)),
            // A server that restarts answers late, and its failure must end with the restart.
            Answer::Silent if self.failures.contains_key(stream) => {}
            Answer::Silent => {
                let until = Instant::now() + ASK_AGAIN_AFTER;
                self.silent.insert(stream.to_owned(), until);
            }
            Answer::NoJetStream | Answer::Unknown => {}
        }
        if self.unavailable >= MAX_MISSING {
            let error = "JetStream is disabled, as after a write error";
            self.failures.insert(SERVER.to_owned(), error.to_owned());
        } else if self.unavailable == 0 {
            self.failures.remove(SERVER);
        }
    }

    /// Stores a message in CHECKS. If the stream keeps a write error, another one finds out whether
    /// the server can write again, because deleting CHECKS first would make room for itself.
    async fn write(&mut self) {
        if self.is_single && matches!(self.bus.write_error(CHECKS).await, Answer::Failed(_)) {
            let second = streams::second_checks(&self.checks);
            let stored = self.bus.store_check(&second).await;
            drop(self.bus.jetstream().delete_stream(&second.name).await);
            match stored {
                Err(problem) => return self.unwritable(problem).await,
                Ok(_) => drop(self.bus.jetstream().delete_stream(CHECKS).await),
            }
        }
        match self.bus.store_check(&self.checks).await {
            Err(problem) => self.unwritable(problem).await,
            // Nothing is known, so a failure stays.
            Ok(false) => self.wrote = Some(Instant::now() + ASK_AGAIN_AFTER),
            Ok(true) => {
                self.unconfirmed = 0;
                self.failures.remove(CHECKS);
            }
        }
    }

    async fn unwritable(&mut self, problem: String) {
        self.unconfirmed += 1;
        if self.is_single
            && let Answer::Failed(error) = self.bus.write_error(CHECKS).await
        {
            self.failures.insert(CHECKS.to_owned(), error);
        } else if self.unconfirmed >= MAX_MISSING {
            self.failures.insert(CHECKS.to_owned(), problem);
        }
    }

    fn report(&mut self, check: &Check) {
        let storage = self.bus.storage();
        let described = |(stream, error): (&String, &String)| format!("stream {stream}: {error}");
        let lasting = self.failures.iter().filter(|(stream, _)| *stream != CHECKS);
        storage.note_lasting_write_errors(lasting.map(described).collect());
        let events = [EVENTS, SERVER].map(|stream| self.failures.get_key_value(stream));
        let events = events.into_iter().flatten().next().map(described);
        storage.note_events_write_error(events.map(|error| format!("{error}; {}", self.advice)));
        if self.failures.is_empty() {
            if self.pace.reset() {
                tracing::info!(
                    code = codes::STORAGE_WRITABLE,
                    "storage can be written again"
                );
            }
            return check.succeed();
        }
        let errors: Vec<_> = self.failures.iter().map(described).collect();
        let problem = format!(
            "the NATS server cannot write: {}; {}",
            errors.join("; "),
            self.advice
        );
        if self.pace.is_due(&problem, Instant::now()) {
            tracing::error!(
                code = codes::STORAGE_WRITE_FAILED,
                error = problem,
                "storage cannot be written"
            );
        }
        check.fail(problem);
    }
}

impl Bus {
    /// Asks a stream for its write error.
    async fn write_error(&self, stream: &str) -> Answer {
        let (subject, payload) = match stream.strip_prefix("KV_") {
            Some(bucket) => (
                format!("STREAM.PURGE.{stream}"),
                // The server stores no such key: an `=` is followed by two digits.
                json!({"filter": format!("$KV.{bucket}.=check")}),
            ),
            None => (
                format!("STREAM.MSG.DELETE.{stream}"),
                json!({"seq": u64::MAX, "no_erase": true}),
            ),
        };
        // Without the permission the server would not answer, and log a violation each time.
        if !self.access.may_publish(&format!("{API}.{subject}")) {
            return Answer::Unknown;
        }
        match self.jetstream().request(subject, &payload).await {
            Ok(Response::Ok::<Value>(_)) => Answer::Writable,
            Ok(Response::Err { error }) => of_error(error.error_code(), &error.to_string()),
            Err(error) => match error.kind() {
                RequestErrorKind::TimedOut => Answer::Silent,
                RequestErrorKind::NoResponders => Answer::NoJetStream,
                _ => Answer::Unknown,
            },
        }
    }

    /// Stores a message in a stream of checks, which is created if it is missing. A limit of the
    /// storage is no error. `false`: the stream may not be created, so nothing is checked.
    pub(super) async fn store_check(&self, stream: &Config) -> Result<bool, String> {
        let subject = stream.subjects.first();
        if subject.is_some_and(|subject| !self.may_publish(subject)) {
            return Ok(false);
        }
        let mut stored = self.publish_check(stream).await;
        if stored == Err(PublishErrorKind::StreamNotFound) {
            if let Err(error) = self.jetstream().create_stream(stream).await {
                if is_write_error(&error) {
                    return Err(format!("cannot create stream {}: {error}", stream.name));
                }
                tracing::warn!(
                    code = codes::STREAM_INVALID,
                    stream = stream.name,
                    %error,
                    "stream cannot be created, so that writing is not checked; run `tidings \
                     streams apply`"
                );
                return Ok(false);
            }
            stored = self.publish_check(stream).await;
        }
        match stored {
            Err(PublishErrorKind::TimedOut | PublishErrorKind::StreamNotFound) => {
                Err("a message is not confirmed".to_owned())
            }
            _ => Ok(true),
        }
    }

    async fn publish_check(&self, stream: &Config) -> Result<(), PublishErrorKind> {
        let subject = stream.subjects.first().cloned().unwrap_or_default();
        let message = PublishMessage::build().payload(PAYLOAD);
        let published = async {
            let sent = self.jetstream.send_publish(subject, message);
            sent.await?.await
        };
        published.await.map(|_| ()).map_err(|error| error.kind())
    }
}

/// Whether a stream was not created because its files cannot be written.
fn is_write_error(error: &CreateStreamError) -> bool {
    let CreateStreamErrorKind::JetStream(error) = error.kind() else {
        return false;
    };
    [ErrorCode::STREAM_CREATE, ErrorCode::STREAM_STORE_FAILED].contains(&error.error_code())
}
