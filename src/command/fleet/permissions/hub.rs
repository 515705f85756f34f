//! What routers and workers of the hub may do.

use tidings_core::bus::events_state;
use tidings_core::bus::streams::{
    self, AHEAD, CHECKS, DEAD, DELIVERIES, EVENTS, OUTCOMES, ROUTER, SHADOW,
};
use tidings_core::model::access::API;
use tidings_core::model::subject;

use super::Grant;
use super::grants::{buckets, follow, get, grant, own_heartbeats, read};

/// `tidings router`.
pub(super) fn router() -> Vec<Grant> {
    let mut grants = hub_role();
    grants.extend([
        grant(
            "read and acknowledge events",
            [
                format!("{API}.CONSUMER.CREATE.{EVENTS}.{ROUTER}"),
                format!("{API}.CONSUMER.DELETE.{EVENTS}.{ROUTER}"),
                format!("{API}.CONSUMER.MSG.NEXT.{EVENTS}.{ROUTER}"),
                format!("$JS.ACK.{EVENTS}.{ROUTER}.>"),
                format!("{API}.STREAM.MSG.DELETE.{EVENTS}"),
            ],
        ),
        grant(
            "route events of other clusters ahead of the backlog of a few",
            [
                format!("{API}.CONSUMER.CREATE.{EVENTS}.{AHEAD}"),
                format!("{API}.CONSUMER.CREATE.{EVENTS}.{AHEAD}.>"),
                format!("{API}.CONSUMER.DELETE.{EVENTS}.{AHEAD}"),
                format!("{API}.CONSUMER.INFO.{EVENTS}.{AHEAD}"),
                format!("{API}.CONSUMER.MSG.NEXT.{EVENTS}.{AHEAD}"),
                format!("$JS.ACK.{EVENTS}.{AHEAD}.>"),
            ],
        ),
        grant(
            "answer members and taps that ask for a consumer",
            [
                format!("{API}.CONSUMER.CREATE.{EVENTS}.>"),
                "_R_.>".to_owned(),
            ],
        ),
        grant("store deliveries", [subject::ALL_DELIVERIES.to_owned()]),
        grant(
            "record what would be delivered, in shadow mode",
            [
                format!("{API}.STREAM.CREATE.{SHADOW}"),
                subject::ALL_SHADOW.to_owned(),
            ],
        ),
        Grant {
            purpose: "read outcomes and dead letters, for the status of Alerts and Providers, and \
                      for the console",
            subjects: [OUTCOMES, DEAD]
                .iter()
                .flat_map(|name| read(name))
                .collect(),
        },
        Grant {
            purpose: "read events and heartbeats, for the console",
            subjects: [EVENTS.to_owned(), format!("KV_{}", streams::HEARTBEATS)]
                .iter()
                .flat_map(|name| read(name))
                .collect(),
        },
        grant(
            "record who does something on the console, replay and drop dead letters, and resume \
             deliveries",
            [
                subject::ALL_AUDIT.to_owned(),
                subject::ALL_PARKED.to_owned(),
                format!("{API}.STREAM.MSG.DELETE.{DEAD}"),
                format!("{API}.STREAM.MSG.DELETE.{DELIVERIES}"),
                format!("$KV.{}.>", streams::LIMITS),
            ],
        ),
        buckets(
            "keep its position, what it counts, and extension fields",
            &[streams::CONSUMERS, streams::COUNTS, streams::EXTENSIONS],
        ),
        reports("router"),
        follow(&[
            streams::LIMITS,
            streams::EXTENSIONS,
            streams::CLUSTERS,
            streams::CONSUMERS,
            streams::HEARTBEATS,
        ]),
    ]);
    grants
}

/// `tidings worker`.
pub(super) fn worker() -> Vec<Grant> {
    let mut grants = hub_role();
    grants.extend([
        grant(
            "read and acknowledge deliveries",
            [
                format!("{API}.CONSUMER.CREATE.{DELIVERIES}.>"),
                format!("{API}.CONSUMER.DELETE.{DELIVERIES}.*"),
                format!("{API}.CONSUMER.MSG.NEXT.{DELIVERIES}.*"),
                format!("$JS.ACK.{DELIVERIES}.>"),
                format!("{API}.STREAM.MSG.DELETE.{DELIVERIES}"),
            ],
        ),
        grant(
            "requeue and park deliveries, and store how they ended",
            [
                subject::ALL_DELIVERIES,
                subject::ALL_PARKED,
                subject::ALL_OUTCOMES,
                subject::ALL_DEAD,
            ]
            .map(str::to_owned),
        ),
        buckets(
            "keep states, limits, crash marks, leases, and what it counts",
            &[
                streams::LATEST,
                streams::LIMITS,
                streams::SUSPECTS,
                streams::CONSUMERS,
                streams::COUNTS,
                streams::EXTENSIONS,
            ],
        ),
        reports("worker"),
        follow(&[
            streams::LIMITS,
            streams::SUSPECTS,
            streams::EXTENSIONS,
            streams::CLUSTERS,
        ]),
    ]);
    grants
}

/// What routers and workers share: they watch the streams, and create those that are missing.
fn hub_role() -> Vec<Grant> {
    let second = "CHECKS-2";
    let create = streams::names().map(|name| format!("{API}.STREAM.CREATE.{name}"));
    vec![
        grant(
            "watch the streams and the storage",
            [
                format!("{API}.INFO"),
                format!("{API}.STREAM.INFO.*"),
                format!("{API}.CONSUMER.INFO.{EVENTS}.{ROUTER}"),
                format!("{API}.CONSUMER.INFO.{DELIVERIES}.*"),
                format!("{API}.CONSUMER.LIST.{DELIVERIES}"),
                format!("{API}.CONSUMER.NAMES.{DELIVERIES}"),
            ],
        ),
        Grant {
            purpose: "create missing streams and buckets",
            subjects: create.collect(),
        },
        grant(
            "check that the server can write",
            [
                "tidings.checks".to_owned(),
                "tidings.checks.2".to_owned(),
                format!("{API}.STREAM.CREATE.{CHECKS}"),
                format!("{API}.STREAM.CREATE.{second}"),
                format!("{API}.STREAM.DELETE.{CHECKS}"),
                format!("{API}.STREAM.DELETE.{second}"),
                format!("{API}.STREAM.MSG.DELETE.{CHECKS}"),
            ],
        ),
        Grant {
            purpose: "read single messages and records",
            subjects: [EVENTS, DELIVERIES]
                .iter()
                .flat_map(|name| get(name))
                .chain(streams::buckets().flat_map(|name| get(&format!("KV_{name}"))))
                .collect(),
        },
        grant(
            "answer which Alerts and Providers exist",
            ["_INBOX_tools.>".to_owned()],
        ),
    ]
}

fn reports(role: &str) -> Grant {
    grant(
        "report its own processes, and the state of `EVENTS` to members",
        [
            own_heartbeats(role),
            format!("$KV.{}.{}", streams::HUB, events_state::KEY),
        ],
    )
}
