//! Recommends the storage and memory of the NATS servers for a load. Pure arithmetic.
//!
//! The sizes of messages are estimates for the events of Flux. A test compares them with what a
//! server reports; they are within a factor of [`FACTOR`].

use std::time::Duration;

/// How far an estimate may be from what a server stores for a message.
pub const FACTOR: f64 = 2.0;

/// What the server stores for a message besides headers and payload: its subject and its record.
const RECORD: u64 = 110;
/// The header with the message id.
const MESSAGE_ID: u64 = 100;
/// The ids, times and labels that ingest adds to an event.
const EVENT_EXTRA: u64 = 150;
/// The alert, provider and ids of a delivery, with its first attempts.
const DELIVERY_EXTRA: u64 = 700;
/// The attempts of a delivery that was given up.
const DEAD_EXTRA: u64 = 4_000;
/// An outcome: alert, provider and one attempt.
const OUTCOME: u64 = 450;
/// A record of a state, with its key.
const STATE: u64 = 900;
/// A larger event is not copied into its deliveries.
const MOST_COPIED: u64 = 64 << 10;

/// Memory for a message id that the server remembers.
const REMEMBERED_ID: u64 = 250;
/// Memory for the subject of a parked delivery, and for its schedule.
const PARKED: u64 = 400;
/// Memory of a server without load, with the buckets in memory.
const SERVER: u64 = 128 << 20;
/// Deliveries are remembered for this long.
pub const DELIVERY_WINDOW: Duration = Duration::from_secs(120);
/// Dead letters are kept for this long.
pub const DEAD_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// Outcomes are kept for this long.
pub const OUTCOMES_FOR: Duration = Duration::from_secs(3 * 24 * 3600);

/// Ingest stops above this used share of the storage, so what is needed has to fit below it.
const USABLE: f64 = 0.8;
/// The smallest recommended storage of a server.
const LEAST: u64 = 2 << 30;
/// The part of a volume that the server may use.
const PART_OF_VOLUME: f64 = 0.9;

const GIB: u64 = 1 << 30;

/// The load of an installation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// The number of clusters.
    pub clusters: u64,
    /// Events of one cluster per second, on average.
    pub events_per_second: f64,
    /// The size of an event as it is posted, in bytes.
    pub event_size: u64,
    /// How many Alerts match an event, on average.
    pub deliveries_per_event: f64,
    /// How long deliveries to all services may have to wait.
    pub outage: Duration,
    /// The share of deliveries that are given up, from 0 to 1.
    pub dead_share: f64,
    /// States with a record for each cluster: commit statuses, comments, incidents.
    pub states: u64,
    /// How long events are to be kept.
    pub retention: Duration,
    /// How long an equal event is a duplicate.
    pub dedupe_interval: Duration,
    /// Replicas of each stream, and servers.
    pub replicas: u64,
}

/// How a stream is limited: a number of bytes, and a part of the storage of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most bytes.
    pub most: u64,
    /// One part of this many.
    pub divisor: u64,
}

/// What a stream needs on each server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamNeed {
    /// The name.
    pub name: &'static str,
    /// Messages per second that arrive.
    pub per_second: f64,
    /// Stored bytes of a message.
    pub message_bytes: u64,
    /// How long a message stays, as far as the limits allow.
    pub kept: Duration,
    /// Bytes that it needs.
    pub needed: u64,
    /// Bytes that it may use, with the recommended storage; `None` if it has no limit of its own.
    pub limit: Option<u64>,
    /// How long messages stay within the limit, if that is less.
    pub holds: Option<Duration>,
}

/// The recommendation.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamPlan {
    /// Each stream.
    pub streams: Vec<StreamNeed>,
    /// Storage for streams on each server: `max_file_store`.
    pub server_storage: u64,
    /// The setting `nats.storage_limit`: the server counts every replica.
    pub storage_limit: u64,
    /// The volume of each server.
    pub volume: u64,
    /// Memory of each server for message ids.
    pub dedupe_memory: u64,
    /// Memory of each server.
    pub server_memory: u64,
}

/// The limits of the streams, as they are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// EVENTS.
    pub events: Limit,
    /// OUTCOMES.
    pub outcomes: Limit,
    /// DEAD.
    pub dead: Limit,
}

impl Load {
    fn events(&self) -> f64 {
        self.events_per_second * self.clusters as f64
    }

    fn deliveries(&self) -> f64 {
        self.events() * self.deliveries_per_event
    }

    /// Stored bytes of an event.
    pub fn event_bytes(&self) -> u64 {
        self.event_size + EVENT_EXTRA + MESSAGE_ID + RECORD
    }

    /// Stored bytes of a delivery.
    pub fn delivery_bytes(&self) -> u64 {
        self.carried() + DELIVERY_EXTRA + MESSAGE_ID + RECORD
    }

    fn dead_bytes(&self) -> u64 {
        self.carried() + DEAD_EXTRA + MESSAGE_ID + RECORD
    }

    fn carried(&self) -> u64 {
        let event = self.event_size + EVENT_EXTRA;
        if event > MOST_COPIED { 2_000 } else { event }
    }
}

/// Recommends storage and memory for a load.
pub fn plan(load: &Load, limits: &Limits) -> StreamPlan {
    let dead = load.deliveries() * load.dead_share;
    let limited = [
        (
            need("EVENTS", load.events(), load.event_bytes(), load.retention),
            limits.events,
        ),
        (
            need(
                "OUTCOMES",
                load.deliveries(),
                OUTCOME + RECORD,
                OUTCOMES_FOR,
            ),
            limits.outcomes,
        ),
        (need("DEAD", dead, load.dead_bytes(), DEAD_FOR), limits.dead),
    ];
    let deliveries = need(
        "DELIVERIES",
        load.deliveries(),
        load.delivery_bytes(),
        load.outage,
    );
    let states = load.clusters.saturating_mul(load.states);
    let buckets = StreamNeed {
        name: "buckets",
        per_second: 0.0,
        message_bytes: STATE,
        kept: Duration::ZERO,
        needed: states
            .saturating_mul(STATE + RECORD)
            .saturating_add(4 << 20),
        limit: None,
        holds: None,
    };
    let unlimited = deliveries.needed.saturating_add(buckets.needed);
    let server_storage = storage(&limited, unlimited);
    let mut streams: Vec<StreamNeed> = limited
        .iter()
        .map(|(need, limit)| within(need, limit.most.min(server_storage / limit.divisor)))
        .collect();
    streams.insert(1, deliveries);
    streams.push(buckets);
    let dedupe_memory = bytes(
        (load.events() * load.dedupe_interval.as_secs_f64()
            + load.deliveries() * DELIVERY_WINDOW.as_secs_f64())
            * REMEMBERED_ID as f64,
    );
    let parked = bytes(load.deliveries() * load.outage.as_secs_f64() * PARKED as f64);
    StreamPlan {
        streams,
        server_storage,
        storage_limit: server_storage.saturating_mul(load.replicas),
        volume: round_up(bytes(server_storage as f64 / PART_OF_VOLUME)),
        dedupe_memory,
        server_memory: dedupe_memory.saturating_add(parked).saturating_add(SERVER),
    }
}

fn need(name: &'static str, per_second: f64, message_bytes: u64, kept: Duration) -> StreamNeed {
    StreamNeed {
        name,
        per_second,
        message_bytes,
        kept,
        needed: bytes(per_second * kept.as_secs_f64() * message_bytes as f64),
        limit: None,
        holds: None,
    }
}

/// The storage of a server in whole GiB, so that each stream gets what it needs as far as its own
/// limit allows, and all of it leaves a reserve.
fn storage(limited: &[(StreamNeed, Limit)], unlimited: u64) -> u64 {
    let wanted = |(need, limit): &(StreamNeed, Limit)| need.needed.min(limit.most);
    let for_each = limited
        .iter()
        .map(|entry| wanted(entry).saturating_mul(entry.1.divisor));
    let all: u64 = limited.iter().map(wanted).sum();
    let for_all = bytes(all.saturating_add(unlimited) as f64 / USABLE);
    let most = for_each.chain([for_all, LEAST]).max();
    round_up(most.unwrap_or(LEAST))
}

fn within(need: &StreamNeed, limit: u64) -> StreamNeed {
    let is_short = need.needed > limit;
    let rate = need.per_second * need.message_bytes as f64;
    StreamNeed {
        limit: Some(limit),
        holds: is_short.then(|| Duration::from_secs((limit as f64 / rate) as u64)),
        ..*need
    }
}

/// Bytes as a whole number; more than there are count as the most.
fn bytes(number: f64) -> u64 {
    number.max(0.0).ceil() as u64
}

fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(GIB).saturating_mul(GIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
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

    fn load() -> Load {
        Load {
            clusters: 10,
            events_per_second: 0.5,
            event_size: 1024,
            deliveries_per_event: 2.0,
            outage: Duration::from_secs(4 * 3600),
            dead_share: 0.001,
            states: 200,
            retention: Duration::from_secs(72 * 3600),
            dedupe_interval: Duration::from_secs(300),
            replicas: 3,
        }
    }

    #[test]
    fn every_stream_gets_what_it_needs_and_a_reserve_is_left() {
        let plan = plan(&load(), &LIMITS);
        let names: Vec<_> = plan.streams.iter().map(|stream| stream.name).collect();
        assert_eq!(
            names,
            ["EVENTS", "DELIVERIES", "OUTCOMES", "DEAD", "buckets"]
        );
        let needed: u64 = plan.streams.iter().map(|stream| stream.needed).sum();
        assert!(
            needed as f64 <= 0.8 * plan.server_storage as f64,
            "{plan:?}"
        );
        let events = &plan.streams[0];
        // 5 events per second for 72 hours.
        assert_eq!(events.needed, 5 * 72 * 3600 * load().event_bytes());
        assert_eq!(
            (events.holds, events.limit > Some(events.needed)),
            (None, true)
        );
        assert_eq!(plan.storage_limit, 3 * plan.server_storage);
        assert!(plan.volume > plan.server_storage);
        assert_eq!(plan.server_storage % GIB, 0);
    }

    #[test]
    fn a_stream_that_its_limit_cuts_says_how_long_it_holds() {
        let large = Load {
            events_per_second: 100.0,
            ..load()
        };
        let plan = plan(&large, &LIMITS);
        let events = &plan.streams[0];
        assert_eq!(events.limit, Some(10 * GIB));
        let rate = 1000.0 * large.event_bytes() as f64;
        let holds = events.holds.unwrap().as_secs_f64();
        assert!((holds - 10.0 * GIB as f64 / rate).abs() < 1.0, "{holds}");
        assert!(plan.server_storage >= 30 * GIB);
    }

    #[test]
    fn more_of_anything_needs_no_less() {
        let least = plan(&load(), &LIMITS);
        let changes: [fn(&mut Load); 8] = [
            |load| load.clusters *= 50,
            |load| load.events_per_second *= 50.0,
            |load| load.event_size *= 50,
            |load| load.deliveries_per_event *= 50.0,
            |load| load.outage *= 50,
            |load| load.dead_share = 1.0,
            |load| load.states *= 10_000,
            |load| load.dedupe_interval *= 50,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut more = load();
            change(&mut more);
            let more = plan(&more, &LIMITS);
            assert!(
                more.server_storage > least.server_storage
                    || more.server_memory > least.server_memory,
                "{number}: {more:?}"
            );
            assert!(more.server_storage >= least.server_storage, "{number}");
        }
    }

    #[test]
    fn absurd_loads_do_not_overflow() {
        let absurd = Load {
            clusters: u64::MAX,
            events_per_second: 1e300,
            states: u64::MAX,
            replicas: 5,
            ..load()
        };
        assert!(plan(&absurd, &LIMITS).storage_limit > 0);
    }
}
