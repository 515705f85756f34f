//! Reads what the server counts in DELIVERIES and OUTCOMES.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Config;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::Deserialize;

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::subject;

/// The pause before messages are counted again. An acknowledgement that the consumer has counted
/// has removed its message by then.
const REMOVED_WITHIN: Duration = Duration::from_millis(50);

/// One reading. The server changes while it is read, so the messages are counted twice: before
/// everything else, and after it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When it began, by the server's clock.
    pub read_at: Timestamp,
    /// The server that holds the stream: its name, and the id of the server that was asked.
    pub server: String,
    /// Whether the stream has several replicas, which may lag behind each other.
    pub is_replicated: bool,
    /// The count before everything else.
    pub before: StreamCount,
    /// The consumers, by name.
    pub consumers: BTreeMap<String, ConsumerCount>,
    /// The number of outcomes that ended a delivery.
    pub ended: u64,
    /// The count after everything else.
    pub after: StreamCount,
}

/// The messages of DELIVERIES at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCount {
    /// When the stream was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The sequence of the last message.
    pub last_sequence: u64,
    /// The number of messages.
    pub messages: u64,
    /// The number of ready messages, by subject.
    pub ready: BTreeMap<String, u64>,
}

/// What the server counts for a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerCount {
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The filter of its messages.
    pub filter: String,
    /// The number of delivered messages; a redelivered message counts again.
    pub delivered: u64,
    /// The number of delivered messages that are not acknowledged.
    pub unacknowledged: u64,
    /// The number of messages that are not delivered yet.
    pub pending: u64,
}

impl StreamCount {
    /// The number of parked messages.
    pub fn parked(&self) -> u64 {
        self.messages
            .saturating_sub(self.ready.values().sum::<u64>())
    }

    /// The number of ready messages of a consumer. Its filter ends in `.>`.
    pub fn ready_for(&self, consumer: &ConsumerCount) -> u64 {
        let prefix = consumer.filter.trim_end_matches('>');
        let ready = self.ready.iter();
        ready
            .filter(|(subject, _)| subject.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }
}

impl ConsumerCount {
    fn of(info: &consumer::Info) -> Self {
        Self {
            created_ns: nanoseconds(info.created.unix_timestamp_nanos()),
            filter: info.config.filter_subject.clone(),
            delivered: info.delivered.consumer_sequence,
            unacknowledged: info.num_ack_pending as u64,
            pending: info.num_pending,
        }
    }
}

impl Bus {
    /// Reads the counts. `None` if the server was restarted meanwhile.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream does not exist.
    pub(super) async fn read_counts(&self) -> Result<Option<Reading>, BusError> {
        let asked = self.client().server_info().server_id;
        let read_at = self.clock().now();
        let (before, holder) = self.count_deliveries().await?;
        let consumers = self.count_consumers().await?;
        let ended = self.count_ended().await?;
        tokio::time::sleep(REMOVED_WITHIN).await;
        let (after, holder_after) = self.count_deliveries().await?;
        let is_same = self.client().server_info().server_id == asked && holder == holder_after;
        Ok(is_same.then(|| Reading {
            read_at,
            is_replicated: holder.is_replicated,
            server: holder.key(&asked),
            before,
            consumers,
            ended,
            after,
        }))
    }

    async fn count_deliveries(&self) -> Result<(StreamCount, Holder), BusError> {
        let info = self
            .stream_detail(streams::DELIVERIES, subject::ALL_DELIVERIES)
            .await?;
        let count = StreamCount {
            created_ns: nanoseconds(info.created.as_nanosecond()),
            last_sequence: info.state.last_seq,
            messages: info.state.messages,
            ready: info.state.subjects.unwrap_or_default(),
        };
        let holder = Holder {
            leader: info.cluster.and_then(|cluster| cluster.leader),
            is_replicated: info.config.num_replicas > 1,
        };
        Ok((count, holder))
    }

    async fn count_consumers(&self) -> Result<BTreeMap<String, ConsumerCount>, BusError> {
        let stream = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let stream = stream.await.map_err(unavailable)?;
        let infos: Vec<_> = stream
            .consumers()
            .try_collect()
            .await
            .map_err(unavailable)?;
        let counts = infos
            .iter()
            .map(|info| (info.name.clone(), ConsumerCount::of(info)));
        Ok(counts.collect())
    }

    /// Counts the outcomes that ended a delivery. Old outcomes that the stream evicts only raise
    /// the number, because just those of the outcome `retrying` are subtracted.
    async fn count_ended(&self) -> Result<u64, BusError> {
        let info = self
            .stream_detail(streams::OUTCOMES, subject::RETRYING_OUTCOMES)
            .await?;
        let retrying: u64 = info.state.subjects.unwrap_or_default().values().sum();
        Ok(info.state.last_seq.saturating_sub(retrying))
    }

    /// Reads the state of a stream, with the number of messages of each subject that fits a filter.
    pub(in crate::bus) async fn stream_detail(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<StreamDetail, BusError> {
        let body = serde_json::json!({ "subjects_filter": filter });
        let response = self
            .jetstream()
            .request(format!("STREAM.INFO.{stream}"), &body)
            .await;
        match response.map_err(unavailable)? {
            Response::Ok(info) => Ok(info),
            Response::Err { error } => Err(unavailable(format!("stream {stream}: {error}"))),
        }
    }
}

fn nanoseconds(time: i128) -> i64 {
    i64::try_from(time).unwrap_or_default()
}

/// Which server holds the stream.
#[derive(PartialEq, Eq)]
struct Holder {
    leader: Option<String>,
    is_replicated: bool,
}

impl Holder {
    /// A restarted server has a new id. The leader of replicas has the same counts with any id.
    fn key(self, asked: &str) -> String {
        let leader = self.leader.unwrap_or_default();
        if self.is_replicated {
            leader
        } else {
            format!("{leader} {asked}")
        }
    }
}

/// The state of a stream with the number of messages of each subject.
#[derive(Deserialize)]
pub(in crate::bus) struct StreamDetail {
    created: Timestamp,
    config: Config,
    pub(in crate::bus) state: State,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
pub(in crate::bus) struct State {
    pub(in crate::bus) messages: u64,
    last_seq: u64,
    pub(in crate::bus) subjects: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
}
