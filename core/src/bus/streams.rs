//! The streams, buckets and consumers, as they must be on the server.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::model::subject;

/// Every event, for the router, taps and replays.
pub const EVENTS: &str = "EVENTS";
/// Every delivery that is owed, ready or parked.
pub const DELIVERIES: &str = "DELIVERIES";
/// What became of each attempt.
pub const OUTCOMES: &str = "OUTCOMES";
/// What was given up.
pub const DEAD: &str = "DEAD";
/// The bucket of states of which only the newest counts.
pub const LATEST: &str = "latest";
/// The bucket of what all workers must know before they call a destination: circuits, taken slots,
/// calls under way.
pub const LIMITS: &str = "limits";
/// The bucket of deliveries that may have ended the process that attempted them.
pub const SUSPECTS: &str = "suspects";

/// The durable consumer that all routers share.
pub const ROUTER: &str = "router";

/// After this long without a sign of life a message comes again.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// A backstop only: a work queue skips a message silently once it is reached, so our own policy
/// ends long before.
pub const MOST_DELIVERIES: i64 = 1000;
/// More messages that are not acknowledged yet are not handed out, for all processes together.
const MOST_UNACKNOWLEDGED: i64 = 20_000;

const DAY: Duration = Duration::from_secs(24 * 3600);
const GIB: u64 = 1 << 30;
/// Records end this long after their last write.
const RECORDS_END_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// A delivery that ends processes does so again at once, or not at all.
const SUSPICIONS_END_AFTER: Duration = DAY;

/// What differs between installations.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    /// For how long the same event is a duplicate.
    pub dedupe_interval: Duration,
    /// What the server may store, where that is known, in bytes.
    pub storage_limit: Option<u64>,
    /// Copies of each stream: 1, or 3 on a cluster.
    pub replicas: usize,
}

/// All streams, in the order in which they are made: DELIVERIES first, which needs no room of its
/// own, then those with limits, then the buckets, which are streams too.
pub fn all(sizing: &Sizing) -> [Config; 7] {
    [
        deliveries(sizing),
        events(sizing),
        outcomes(sizing),
        dead(sizing),
        bucket(
            LATEST,
            "The newest state of each key, as asked for and as posted",
            RECORDS_END_AFTER,
            sizing,
        ),
        // Without an end: a Provider that is paused stays paused.
        bucket(
            LIMITS,
            "What all workers must know before they call a destination",
            Duration::ZERO,
            sizing,
        ),
        bucket(
            SUSPECTS,
            "How many processes have ended while they attempted a delivery alone",
            SUSPICIONS_END_AFTER,
            sizing,
        ),
    ]
}

fn events(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: 3 * DAY,
        max_bytes: share(sizing, 10 * GIB, 3),
        duplicate_window: sizing.dedupe_interval,
        ..base(EVENTS, &[subject::ALL_EVENTS], sizing)
    }
}

/// Schedules forbid limits that discard, so there are none: head-room is kept by role instead.
fn deliveries(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        duplicate_window: Duration::from_secs(120),
        ..base(
            DELIVERIES,
            &[subject::ALL_DELIVERIES, subject::ALL_PARKED],
            sizing,
        )
    }
}

fn outcomes(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: 3 * DAY,
        max_bytes: share(sizing, GIB, 10),
        ..base(OUTCOMES, &[subject::ALL_OUTCOMES], sizing)
    }
}

fn dead(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: 90 * DAY,
        max_bytes: share(sizing, 2 * GIB, 10),
        ..base(DEAD, &[subject::ALL_DEAD], sizing)
    }
}

/// A bucket of records, of which each key keeps the last (NATS ADR-8).
fn bucket(name: &str, description: &str, max_age: Duration, sizing: &Sizing) -> Config {
    Config {
        description: Some(description.to_owned()),
        max_age,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        ..base(&format!("KV_{name}"), &[&format!("$KV.{name}.>")], sizing)
    }
}

fn base(name: &str, subjects: &[&str], sizing: &Sizing) -> Config {
    Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        duplicate_window: Duration::from_secs(120),
        num_replicas: sizing.replicas,
        allow_direct: true,
        ..Config::default()
    }
}

/// At most `most` bytes, and at most that part of the storage where its size is known.
fn share(sizing: &Sizing, most: u64, part: u64) -> i64 {
    let bytes = sizing
        .storage_limit
        .map_or(most, |limit| most.min(limit / part));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The consumer of the routers.
pub fn router_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some(ROUTER.to_owned()),
        max_deliver: -1,
        ..base_consumer()
    }
}

/// The consumer of one pool and type, shared by all workers of the pool.
pub fn worker_consumer(pool: &str, kind: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(subject::worker_durable(pool, kind)),
        filter_subject: subject::delivery_filter(pool, kind),
        max_deliver: MOST_DELIVERIES,
        ..base_consumer()
    }
}

fn base_consumer() -> pull::Config {
    pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: MOST_UNACKNOWLEDGED,
        ..pull::Config::default()
    }
}

/// What of a stream on the server is not as it must be: one `field: is A, must be B` for each.
pub fn differences(is: &Config, must: &Config) -> Vec<String> {
    differing(&[
        (
            "subjects",
            format!("{:?}", is.subjects),
            format!("{:?}", must.subjects),
        ),
        (
            "retention",
            format!("{:?}", is.retention),
            format!("{:?}", must.retention),
        ),
        (
            "storage",
            format!("{:?}", is.storage),
            format!("{:?}", must.storage),
        ),
        (
            "discard",
            format!("{:?}", is.discard),
            format!("{:?}", must.discard),
        ),
        (
            "max_age",
            format!("{:?}", is.max_age),
            format!("{:?}", must.max_age),
        ),
        // A server with less room takes a smaller limit; none at all would let the stream fill it.
        (
            "max_bytes",
            (is.max_bytes > 0).to_string(),
            (must.max_bytes > 0).to_string(),
        ),
        ("max_msgs", limit(is.max_messages), limit(must.max_messages)),
        (
            "max_msgs_per_subject",
            limit(is.max_messages_per_subject),
            limit(must.max_messages_per_subject),
        ),
        (
            "max_msg_size",
            limit(is.max_message_size.into()),
            limit(must.max_message_size.into()),
        ),
        (
            "duplicate_window",
            format!("{:?}", is.duplicate_window),
            format!("{:?}", must.duplicate_window),
        ),
        (
            "replicas",
            is.num_replicas.to_string(),
            must.num_replicas.to_string(),
        ),
        (
            "allow_msg_schedules",
            is.allow_message_schedules.to_string(),
            must.allow_message_schedules.to_string(),
        ),
        (
            "allow_direct",
            is.allow_direct.to_string(),
            must.allow_direct.to_string(),
        ),
        ("no_ack", is.no_ack.to_string(), must.no_ack.to_string()),
    ])
}

fn differing(fields: &[(&str, String, String)]) -> Vec<String> {
    let differing = fields.iter().filter(|(_, is, must)| is != must);
    differing
        .map(|(field, is, must)| format!("{field} is {is}, must be {must}"))
        .collect()
}

/// What of a consumer on the server is not as it must be. Where it began is its own affair, and how
/// soon what a dead process held comes again (`ack_wait`) that of whoever runs the server.
pub fn consumer_differences(is: &consumer::Config, must: &pull::Config) -> Vec<String> {
    differing(&[
        (
            "filter_subject",
            is.filter_subject.clone(),
            must.filter_subject.clone(),
        ),
        (
            "filter_subjects",
            format!("{:?}", is.filter_subjects),
            format!("{:?}", must.filter_subjects),
        ),
        (
            "ack_policy",
            format!("{:?}", is.ack_policy),
            format!("{:?}", must.ack_policy),
        ),
        (
            "max_deliver",
            limit(is.max_deliver),
            limit(must.max_deliver),
        ),
        (
            "max_ack_pending",
            limit(is.max_ack_pending),
            limit(must.max_ack_pending),
        ),
    ])
}

/// Servers tell 0 and -1 for the same.
fn limit(number: i64) -> String {
    if number > 0 {
        number.to_string()
    } else {
        "unlimited".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZING: Sizing = Sizing {
        dedupe_interval: Duration::from_secs(300),
        storage_limit: None,
        replicas: 1,
    };

    #[test]
    fn events_take_at_most_a_third_of_the_storage() {
        assert_eq!(events(&SIZING).max_bytes, 10 << 30);
        let small = Sizing {
            storage_limit: Some(3 << 20),
            ..SIZING
        };
        assert_eq!(events(&small).max_bytes, 1 << 20);
    }

    #[test]
    fn a_stream_that_differs_is_told_by_field() {
        let must = &events(&SIZING);
        assert_eq!(differences(must, must), Vec::<String>::new());
        let is = Config {
            max_age: Duration::from_secs(1),
            ..must.clone()
        };
        assert_eq!(differences(&is, must), ["max_age is 1s, must be 259200s"]);
        let (smaller, unlimited) = (
            Config {
                max_bytes: 1,
                ..must.clone()
            },
            Config {
                max_bytes: -1,
                ..must.clone()
            },
        );
        assert_eq!(differences(&smaller, must), Vec::<String>::new());
        assert_eq!(differences(&unlimited, must).len(), 1);
    }
}
