//! What a worker of one pool may do.

use tidings_core::bus::streams::{self, DELIVERIES, EVENTS, ROUTER};
use tidings_core::model::access::API;
use tidings_core::model::subject;
use tidings_core::model::token::Token;
use tidings_workers::notifier::kinds;

use super::Grant;
use super::grants::{follow, grant, own_heartbeats};

/// The worker of one pool. It may not read messages by their sequence, because that cannot be
/// confined to a pool.
pub(super) fn pool_worker(pool: &str) -> Vec<Grant> {
    let kinds = || kinds().iter().map(|kind| kind.name).chain([""]);
    let consumer = |kind: &str| {
        let name = subject::worker_durable(pool, kind);
        let filter = subject::delivery_filter(pool, kind);
        [
            format!("{API}.CONSUMER.CREATE.{DELIVERIES}.{name}.{filter}"),
            format!("{API}.CONSUMER.DELETE.{DELIVERIES}.{name}"),
            format!("{API}.CONSUMER.MSG.NEXT.{DELIVERIES}.{name}"),
            format!("$JS.ACK.{DELIVERIES}.{name}.>"),
        ]
    };
    let pool_token = Token::new(pool);
    let read = [
        streams::LATEST,
        streams::LIMITS,
        streams::SUSPECTS,
        streams::CONSUMERS,
        streams::CLUSTERS,
    ];
    let read = read.map(|name| format!("{API}.DIRECT.GET.KV_{name}.$KV.{name}.>"));
    let write = [streams::LATEST, streams::LIMITS, streams::SUSPECTS];
    vec![
        Grant {
            purpose: "read and acknowledge the deliveries of its pool, with consumers of these \
                      names and filters",
            subjects: kinds().flat_map(consumer).collect(),
        },
        grant(
            "requeue and park deliveries of its pool, and read what it parked",
            [
                format!("deliveries.{pool_token}.>"),
                format!("parked.{pool_token}.>"),
                format!("{API}.DIRECT.GET.{DELIVERIES}.parked.{pool_token}.>"),
            ],
        ),
        grant(
            "store how deliveries ended",
            [subject::ALL_OUTCOMES, subject::ALL_DEAD].map(str::to_owned),
        ),
        grant(
            "watch the streams and the storage",
            [
                format!("{API}.INFO"),
                format!("{API}.STREAM.INFO.*"),
                format!("{API}.CONSUMER.INFO.{EVENTS}.{ROUTER}"),
                format!("{API}.CONSUMER.INFO.{DELIVERIES}.*"),
            ],
        ),
        Grant {
            purpose: "read single records",
            subjects: read.into(),
        },
        Grant {
            purpose: "keep states, limits, crash marks and leases",
            subjects: write.map(|name| format!("$KV.{name}.>")).into(),
        },
        grant("report its own processes", [own_heartbeats("worker")]),
        follow(&[streams::LIMITS, streams::SUSPECTS, streams::CLUSTERS]),
    ]
}
