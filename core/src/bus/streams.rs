//! The expected configuration of all streams, buckets and consumers.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::model::stream_plan::{DEAD_FOR, DELIVERY_WINDOW, Limit, Limits, OUTCOMES_FOR};
use crate::model::subject;

/// The stream of all events.
pub const EVENTS: &str = "EVENTS";
/// The stream of all pending deliveries, ready or parked.
pub const DELIVERIES: &str = "DELIVERIES";
/// The stream of the outcomes of all attempts.
pub const OUTCOMES: &str = "OUTCOMES";
/// The stream of dead letters.
pub const DEAD: &str = "DEAD";
/// The stream of actions that people asked for.
pub const AUDIT: &str = "AUDIT";
/// The bucket of states of which the newest wins: commit statuses, comments, incidents.
pub const LATEST: &str = "latest";
/// The bucket that limits calls to destinations: circuits, reserved slots, shared permits.
pub const LIMITS: &str = "limits";
/// The bucket of crash marks (redelivered deliveries that may have crashed their process) and of
/// leases of processes. Both are of use for minutes only.
pub const SUSPECTS: &str = "suspects";

/// The bucket of the extension fields that Alerts and Providers had.
pub const EXTENSIONS: &str = "extensions";
/// The bucket of the server's counts of DELIVERIES, which show losses.
pub const COUNTS: &str = "counts";
/// The bucket of the clusters that the hub knows, with their labels.
pub const CLUSTERS: &str = "clusters";
/// The bucket of the processes that run.
pub const HEARTBEATS: &str = "heartbeats";
/// The bucket of what members may know of the hub.
pub const HUB: &str = "hub";

/// The bucket of an edge's own server: which events the hub has.
pub const EDGE: &str = "edge";

/// The bucket of what is needed to recreate a consumer whose state is lost.
pub const CONSUMERS: &str = "consumers";

/// The stream of messages that check whether the server can write. It holds one, of 8 KiB.
pub const CHECKS: &str = "CHECKS";

/// The stream of what routers in shadow mode would have delivered. They create it.
pub const SHADOW: &str = "SHADOW";

/// The durable consumer that all routers share.
pub const ROUTER: &str = "router";

/// The durable consumer that routers share while some clusters have a backlog; see
/// [`crate::bus::ahead`].
pub const AHEAD: &str = "router-ahead";

/// Marks the durable consumers of bridges, in their metadata.
pub const BRIDGE: &str = "tidings.dev/bridge";
/// The stream of CloudEvents that `tidings bridge --create-stream` creates.
pub const CLOUD_EVENTS: &str = "CLOUDEVENTS";

/// A message is redelivered after this time without an acknowledgement or progress report.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often JetStream may deliver a message. The crash guard ends a delivery long before this
/// limit, above which a work queue skips the message silently.
pub const MAX_DELIVERIES: i64 = 1000;
/// The number of unacknowledged messages that all processes together may hold.
const MAX_UNACKNOWLEDGED: i64 = 20_000;

const DAY: Duration = Duration::from_secs(24 * 3600);
const GIB: u64 = 1 << 30;
/// Records of states expire this long after their last write.
const STATES_EXPIRE_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// A delivery that crashes workers does so within minutes, so older marks have no use.
const MARKS_EXPIRE_AFTER: Duration = DAY;
/// Records of actions are kept for this long.
const AUDIT_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A cluster that has been silent for less than this is shown with the time of its last report.
const HEARTBEATS_EXPIRE_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest time that events are kept.
pub const EVENTS_FOR: Duration = Duration::from_secs(3 * 24 * 3600);
/// The limits of the streams that have one.
pub const STREAM_LIMITS: Limits = Limits {
    events: Limit {
        most: 10 * GIB,
        divisor: 3,
    },
    outcomes: Limit {
        most: GIB,
        divisor: 10,
    },
    dead: Limit {
        most: 2 * GIB,
        divisor: 10,
    },
};

/// The part of the configuration that differs between installations.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    /// How long a second copy of an event counts as a duplicate.
    pub dedupe_interval: Duration,
    /// The number of bytes that all servers together may store, if there is a limit. The server
    /// counts every replica of a stream.
    pub storage_limit: Option<u64>,
    /// The number of replicas of each stream: 1, or 3 in a NATS cluster.
    pub replicas: usize,
}

/// All streams in the order of their creation: DELIVERIES first, which reserves no storage, then
/// the streams with limits, then the buckets, which are streams too. Only the buckets of extensions
/// and consumers precede EVENTS, so that they exist if EVENTS does, unless they were deleted.
pub fn all(sizing: &Sizing) -> [Config; 14] {
    [
        deliveries(sizing),
        // These never expire: a restriction lasts until it is given again or ended.
        bucket(
            EXTENSIONS,
            "Extension fields that Alerts and Providers had",
            Duration::ZERO,
            sizing,
        ),
        bucket(
            CONSUMERS,
            "Positions of consumers, and who recreates one",
            Duration::ZERO,
            sizing,
        ),
        events(sizing),
        outcomes(sizing),
        dead(sizing),
        audit(sizing),
        bucket(
            LATEST,
            "Newest state of each key, as requested and as posted",
            STATES_EXPIRE_AFTER,
            sizing,
        ),
        // These never expire: a paused Provider stays paused.
        bucket(
            LIMITS,
            "Circuits, reserved send times and shared permits of destinations",
            Duration::ZERO,
            sizing,
        ),
        bucket(
            SUSPECTS,
            "Crash marks of redelivered deliveries, and leases of processes",
            MARKS_EXPIRE_AFTER,
            sizing,
        ),
        // These never expire: a loss may show long after the last reading.
        bucket(
            COUNTS,
            "What the server last counted in DELIVERIES",
            Duration::ZERO,
            sizing,
        ),
        // These never expire: a cluster is known until an operator removes it.
        bucket(
            CLUSTERS,
            "Clusters of the fleet, with their labels",
            Duration::ZERO,
            sizing,
        ),
        // A member may write its own keys, and a rollup would delete those of others. In memory,
        // because a full disk must not stop the reports, nor these writes its recovery.
        Config {
            allow_rollup: false,
            storage: StorageType::Memory,
            discard: DiscardPolicy::Old,
            max_messages: 20_000,
            max_message_size: 4 << 10,
            max_bytes: 16 << 20,
            ..bucket(
                HEARTBEATS,
                "Processes that run",
                HEARTBEATS_EXPIRE_AFTER,
                sizing,
            )
        },
        // No member may write here.
        Config {
            storage: StorageType::Memory,
            ..bucket(
                HUB,
                "State of EVENTS, for members",
                HEARTBEATS_EXPIRE_AFTER,
                sizing,
            )
        },
    ]
}

/// The streams of the server of an edge. Nothing evicts its events: they are deleted after the hub
/// has them, and a full stream refuses new ones.
pub fn edge(sizing: &Sizing) -> [Config; 2] {
    let limit = sizing.storage_limit.unwrap_or(10 * GIB);
    let events = Config {
        max_age: Duration::ZERO,
        // The rest is for the bucket, and for files that are being compacted.
        max_bytes: i64::try_from(limit / 4 * 3).unwrap_or(i64::MAX),
        discard: DiscardPolicy::New,
        ..events(sizing)
    };
    let position = bucket(EDGE, "Which events the hub has", Duration::ZERO, sizing);
    [position, events]
}

/// The names of all streams, those of buckets included.
pub fn names() -> impl Iterator<Item = String> {
    let sizing = Sizing {
        dedupe_interval: Duration::ZERO,
        storage_limit: None,
        replicas: 1,
    };
    all(&sizing).into_iter().map(|stream| stream.name)
}

/// The names of all buckets.
pub fn buckets() -> impl Iterator<Item = String> {
    names().filter_map(|name| name.strip_prefix("KV_").map(str::to_owned))
}

fn events(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: EVENTS_FOR,
        max_bytes: share(sizing, STREAM_LIMITS.events),
        duplicate_window: sizing.dedupe_interval,
        ..base(EVENTS, &[subject::ALL_EVENTS], sizing)
    }
}

/// A stream with message schedules cannot have limits. [`crate::bus::storage`] limits it instead.
fn deliveries(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        duplicate_window: DELIVERY_WINDOW,
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
        max_age: OUTCOMES_FOR,
        max_bytes: share(sizing, STREAM_LIMITS.outcomes),
        ..base(OUTCOMES, &[subject::ALL_OUTCOMES], sizing)
    }
}

fn dead(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: DEAD_FOR,
        max_bytes: share(sizing, STREAM_LIMITS.dead),
        ..base(DEAD, &[subject::ALL_DEAD], sizing)
    }
}

/// The stream of actions. What is recorded cannot be deleted. It is small, and the oldest records
/// are discarded.
fn audit(sizing: &Sizing) -> Config {
    let limit = Limit {
        most: GIB / 16,
        divisor: 100,
    };
    Config {
        retention: RetentionPolicy::Limits,
        max_age: AUDIT_FOR,
        max_bytes: share(sizing, limit),
        deny_delete: true,
        deny_purge: true,
        ..base(AUDIT, &[subject::ALL_AUDIT], sizing)
    }
}

/// The stream of CloudEvents. A bridge that was killed republishes what it had not acknowledged, so
/// the window is longer than a restart.
pub fn cloud_events(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: 3 * DAY,
        max_bytes: share(sizing, STREAM_LIMITS.dead),
        duplicate_window: Duration::from_secs(600),
        ..base(CLOUD_EVENTS, &[subject::ALL_CLOUD_EVENTS], sizing)
    }
}

/// The stream of records of shadow mode. Nothing consumes it, so old records are discarded.
pub fn shadow(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_age: 3 * DAY,
        max_bytes: share(
            sizing,
            Limit {
                most: GIB / 2,
                divisor: 20,
            },
        ),
        ..base(SHADOW, &[subject::ALL_SHADOW], sizing)
    }
}

/// The stream of checks, which is created when it is first used. Anybody may delete it.
pub fn checks(sizing: &Sizing) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_messages: 1,
        max_bytes: 1 << 20,
        ..base(CHECKS, &["tidings.checks"], sizing)
    }
}

/// The stream that is used once after a write error of the first.
pub fn second_checks(first: &Config) -> Config {
    Config {
        name: "CHECKS-2".to_owned(),
        subjects: vec!["tidings.checks.2".to_owned()],
        ..first.clone()
    }
}

/// A key-value bucket with one value for each key (NATS ADR-8).
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

/// The limit of a stream in bytes: the most, or a part of the storage if that is less. A stream's
/// limit is that of each replica, and the storage has to hold all of them.
fn share(sizing: &Sizing, Limit { most, divisor }: Limit) -> i64 {
    let replicas = u64::try_from(sizing.replicas.max(1)).unwrap_or(u64::MAX);
    let bytes = sizing
        .storage_limit
        .map_or(most, |limit| most.min(limit / replicas / divisor));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The consumer on EVENTS that all routers share.
pub fn router_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some(ROUTER.to_owned()),
        max_deliver: -1,
        ..base_consumer()
    }
}

/// The consumer on DELIVERIES that all workers of a pool share for one type.
pub fn worker_consumer(pool: &str, kind: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(subject::worker_durable(pool, kind)),
        filter_subject: subject::delivery_filter(pool, kind),
        max_deliver: MAX_DELIVERIES,
        ..base_consumer()
    }
}

/// The durable consumer of a bridge on EVENTS: events of these subjects, from `begin` on.
pub fn bridge_consumer(name: &str, filters: &[String], begin: DeliverPolicy) -> pull::Config {
    pull::Config {
        metadata: [(BRIDGE.to_owned(), "true".to_owned())].into(),
        ..consumer_of_subjects(name, filters, begin)
    }
}

/// The consumer [`AHEAD`]: events of these subjects, from a sequence on.
pub fn ahead_consumer(filters: &[String], start_sequence: u64) -> pull::Config {
    let begin = DeliverPolicy::ByStartSequence { start_sequence };
    consumer_of_subjects(AHEAD, filters, begin)
}

fn consumer_of_subjects(name: &str, filters: &[String], begin: DeliverPolicy) -> pull::Config {
    let (filter_subject, filter_subjects) = match filters {
        [filter] => (filter.clone(), Vec::new()),
        filters => (String::new(), filters.to_vec()),
    };
    pull::Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: begin,
        filter_subject,
        filter_subjects,
        max_deliver: -1,
        ..base_consumer()
    }
}

fn base_consumer() -> pull::Config {
    pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_UNACKNOWLEDGED,
        ..pull::Config::default()
    }
}

/// Compares a stream on the server with its expected configuration. Each difference reads
/// `FIELD is A, expected B`.
pub fn differences(actual: &Config, expected: &Config) -> Vec<String> {
    differing(&[
        (
            "subjects",
            format!("{:?}", actual.subjects),
            format!("{:?}", expected.subjects),
        ),
        (
            "retention",
            format!("{:?}", actual.retention),
            format!("{:?}", expected.retention),
        ),
        (
            "storage",
            format!("{:?}", actual.storage),
            format!("{:?}", expected.storage),
        ),
        (
            "discard",
            format!("{:?}", actual.discard),
            format!("{:?}", expected.discard),
        ),
        (
            "max_age",
            format!("{:?}", actual.max_age),
            format!("{:?}", expected.max_age),
        ),
        // A small server gets a smaller limit. A stream without a limit would fill the storage.
        (
            "max_bytes",
            (actual.max_bytes > 0).to_string(),
            (expected.max_bytes > 0).to_string(),
        ),
        (
            "max_msgs",
            limit(actual.max_messages),
            limit(expected.max_messages),
        ),
        (
            "max_msgs_per_subject",
            limit(actual.max_messages_per_subject),
            limit(expected.max_messages_per_subject),
        ),
        (
            "max_msg_size",
            limit(actual.max_message_size.into()),
            limit(expected.max_message_size.into()),
        ),
        (
            "duplicate_window",
            format!("{:?}", actual.duplicate_window),
            format!("{:?}", expected.duplicate_window),
        ),
        (
            "replicas",
            actual.num_replicas.to_string(),
            expected.num_replicas.to_string(),
        ),
        (
            "allow_msg_schedules",
            actual.allow_message_schedules.to_string(),
            expected.allow_message_schedules.to_string(),
        ),
        (
            "allow_direct",
            actual.allow_direct.to_string(),
            expected.allow_direct.to_string(),
        ),
        (
            "no_ack",
            actual.no_ack.to_string(),
            expected.no_ack.to_string(),
        ),
    ])
}

fn differing(fields: &[(&str, String, String)]) -> Vec<String> {
    let differing = fields
        .iter()
        .filter(|(_, actual, expected)| actual != expected);
    differing
        .map(|(field, actual, expected)| format!("{field} is {actual}, expected {expected}"))
        .collect()
}

/// Compares a consumer on the server with its expected configuration. Its start may differ, and
/// operators may change `ack_wait`.
pub fn consumer_differences(actual: &consumer::Config, expected: &pull::Config) -> Vec<String> {
    differing(&[
        (
            "filter_subject",
            actual.filter_subject.clone(),
            expected.filter_subject.clone(),
        ),
        (
            "filter_subjects",
            format!("{:?}", actual.filter_subjects),
            format!("{:?}", expected.filter_subjects),
        ),
        (
            "ack_policy",
            format!("{:?}", actual.ack_policy),
            format!("{:?}", expected.ack_policy),
        ),
        (
            "max_deliver",
            limit(actual.max_deliver),
            limit(expected.max_deliver),
        ),
        (
            "max_ack_pending",
            limit(actual.max_ack_pending),
            limit(expected.max_ack_pending),
        ),
    ])
}

/// For the server, 0 and -1 both mean unlimited.
fn limit(number: i64) -> String {
    if number > 0 {
        number.to_string()
    } else {
        "unlimited".to_owned()
    }
}

#[cfg(test)]
mod tests;
