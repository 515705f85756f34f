//! What waits: events for routers, and deliveries for workers.
//!
//! The numbers come from the leaders of stream and consumers. A parked delivery is not ready: it
//! needs no worker before its time.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::subject;
use crate::model::time::between;
use crate::model::token::decoded;

/// The number of requests to the server at a time.
const REQUESTS: usize = 16;
/// The most queues whose oldest delivery is read. Those with the most ready deliveries come first.
const OLDEST_OF: usize = 64;

/// The deliveries of one pool and provider type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Those that wait for a worker.
    pub ready: u64,
    /// Those that a worker has and did not acknowledge yet.
    pub unacknowledged: u64,
}

/// What waits at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// The queues that have a consumer or a delivery, by pool and provider type.
    pub queues: BTreeMap<(String, String), Queue>,
    /// The number of parked deliveries.
    pub parked: u64,
    /// How long the oldest ready delivery has waited for a worker.
    pub oldest_ready: Duration,
    /// The number of events that no router has finished.
    pub events_unrouted: u64,
}

impl Workload {
    /// The sum of all queues.
    pub fn total(&self) -> Queue {
        let sum = |sum: Queue, queue: &Queue| Queue {
            ready: sum.ready + queue.ready,
            unacknowledged: sum.unacknowledged + queue.unacknowledged,
        };
        self.queues.values().fold(Queue::default(), sum)
    }
}

/// A consumer of DELIVERIES, or messages that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    /// `deliveries.<pool>.<type>.>`
    filter: String,
    queue: Queue,
    /// The first sequence that was not delivered.
    next: u64,
}

impl Bus {
    /// Reads what waits. It asks the leader of each consumer, about 40 requests for each pool.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream does not exist.
    pub async fn workload(&self) -> Result<Workload, BusError> {
        let detail = self.stream_detail(streams::DELIVERIES, subject::ALL_DELIVERIES);
        let state = detail.await?.state;
        let subjects = state.subjects.unwrap_or_default();
        let stored: u64 = subjects.values().sum();
        let deliveries = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let deliveries = deliveries.await.map_err(unavailable)?;
        let sources = sources(&subjects, &consumers(&deliveries).await?);
        Ok(Workload {
            parked: state.messages.saturating_sub(stored),
            oldest_ready: self.oldest_ready(&deliveries, &sources).await?,
            events_unrouted: self.events_unrouted().await?,
            queues: sources
                .into_iter()
                .filter_map(|source| Some((queue_of(&source.filter)?, source.queue)))
                .collect(),
        })
    }

    async fn oldest_ready(
        &self,
        deliveries: &Stream<()>,
        sources: &[Source],
    ) -> Result<Duration, BusError> {
        let mut waiting: Vec<&Source> = sources
            .iter()
            .filter(|source| source.queue.ready > 0)
            .collect();
        waiting.sort_by_key(|source| std::cmp::Reverse(source.queue.ready));
        let first = waiting.into_iter().take(OLDEST_OF);
        let first: Vec<(String, u64)> = first
            .map(|source| (source.filter.clone(), source.next))
            .collect();
        let times: Vec<Option<Timestamp>> = stream::iter(first)
            .map(async |(filter, next)| stored_at(deliveries, &filter, next).await)
            .buffer_unordered(REQUESTS)
            .try_collect()
            .await?;
        let oldest = times.into_iter().flatten().min();
        Ok(oldest.map_or(Duration::ZERO, |oldest| between(oldest, self.clock().now())))
    }

    /// Without a router's consumer, no event counts as routed.
    async fn events_unrouted(&self) -> Result<u64, BusError> {
        let events = self.jetstream().get_stream_no_info(streams::EVENTS);
        let events = events.await.map_err(unavailable)?;
        match consumer_info(&events, streams::ROUTER).await? {
            Some(info) => Ok(info.num_pending + info.num_ack_pending as u64),
            None => {
                let detail = self.stream_detail(streams::EVENTS, "none").await?;
                Ok(detail.state.messages)
            }
        }
    }
}

async fn consumers(deliveries: &Stream<()>) -> Result<Vec<consumer::Info>, BusError> {
    let names: Vec<String> = deliveries
        .consumer_names()
        .try_collect()
        .await
        .map_err(unavailable)?;
    let infos: Vec<_> = stream::iter(names)
        .map(async |name: String| consumer_info(deliveries, &name).await)
        .buffer_unordered(REQUESTS)
        .try_collect()
        .await?;
    Ok(infos.into_iter().flatten().collect())
}

/// `None` if there is no such consumer.
async fn consumer_info(
    stream: &Stream<()>,
    name: &str,
) -> Result<Option<consumer::Info>, BusError> {
    match stream.consumer_info(name).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

/// When the first message of a filter from a sequence on was stored.
async fn stored_at(
    deliveries: &Stream<()>,
    filter: &str,
    from: u64,
) -> Result<Option<Timestamp>, BusError> {
    let found = deliveries.direct_get_next_for_subject(filter, Some(from));
    match found.await {
        Ok(message) => {
            let time = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos());
            time.map(Some).map_err(unavailable)
        }
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

/// The consumers, and the deliveries that have none, because no worker of their pool ever ran.
fn sources(subjects: &BTreeMap<String, u64>, consumers: &[consumer::Info]) -> Vec<Source> {
    let mut sources = BTreeMap::new();
    for info in consumers {
        let filter = info.config.filter_subject.clone();
        if queue_of(&filter).is_some() {
            let source = Source {
                filter: filter.clone(),
                queue: Queue {
                    ready: info.num_pending,
                    unacknowledged: info.num_ack_pending as u64,
                },
                next: info.delivered.stream_sequence + 1,
            };
            sources.insert(filter, source);
        }
    }
    let mut without = BTreeMap::<String, u64>::new();
    for (subject, count) in subjects {
        let mut tokens = subject.split('.').take(3);
        if let (Some(first), Some(pool), Some(kind)) = (tokens.next(), tokens.next(), tokens.next())
        {
            let filter = format!("{first}.{pool}.{kind}.>");
            if !sources.contains_key(&filter) {
                *without.entry(filter).or_default() += count;
            }
        }
    }
    let without = without.into_iter().map(|(filter, ready)| Source {
        filter,
        queue: Queue {
            ready,
            unacknowledged: 0,
        },
        next: 1,
    });
    sources.into_values().chain(without).collect()
}

/// The pool and the provider type of a filter `deliveries.<pool>.<type>.>`.
fn queue_of(filter: &str) -> Option<(String, String)> {
    let tokens: Vec<&str> = filter.split('.').collect();
    match tokens[..] {
        ["deliveries", pool, kind, ">"] => Some((decoded(pool), decoded(kind))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(filter: &str, pending: u64, unacknowledged: u64) -> consumer::Info {
        let time = "2026-01-02T03:04:05Z";
        serde_json::from_value(json!({
            "type": "io.nats.jetstream.api.v1.consumer_info_response",
            "stream_name": "DELIVERIES",
            "name": "any",
            "created": time,
            "config": {
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "replay_policy": "instant",
                "filter_subject": filter,
            },
            "delivered": {"consumer_seq": 9, "stream_seq": 7},
            "ack_floor": {"consumer_seq": 0, "stream_seq": 0},
            "num_ack_pending": unacknowledged,
            "num_redelivered": 0,
            "num_waiting": 0,
            "num_pending": pending,
        }))
        .unwrap()
    }

    #[test]
    fn deliveries_without_a_consumer_are_ready_and_those_with_one_are_counted_by_it() {
        let subjects = BTreeMap::from([
            ("deliveries.default.slack.apps.chat".to_owned(), 5),
            ("deliveries.eu.slack.apps.chat".to_owned(), 2),
            ("deliveries.eu.slack.apps.other".to_owned(), 1),
            ("deliveries.eu.=.apps.missing".to_owned(), 4),
        ]);
        let consumers = [
            info("deliveries.default.slack.>", 3, 2),
            info("deliveries.default.incident=2Eio.>", 0, 0),
            info("parked.>", 8, 0),
        ];
        let found = sources(&subjects, &consumers);
        let queues: BTreeMap<_, _> = found
            .iter()
            .map(|source| {
                let queue = source.queue;
                let name = queue_of(&source.filter).unwrap();
                (name, (queue.ready, queue.unacknowledged, source.next))
            })
            .collect();
        let key = |pool: &str, kind: &str| (pool.to_owned(), kind.to_owned());
        let expected = BTreeMap::from([
            (key("default", "slack"), (3, 2, 8)),
            (key("default", "incident.io"), (0, 0, 8)),
            (key("eu", "slack"), (3, 0, 1)),
            (key("eu", ""), (4, 0, 1)),
        ]);
        assert_eq!(queues, expected);
    }
}
