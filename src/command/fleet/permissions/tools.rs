//! What the tools and the bridge may do.

use tidings_core::bus::names;
use tidings_core::bus::streams::{self, DEAD, DELIVERIES, EVENTS};
use tidings_core::model::access::API;
use tidings_core::model::subject;

use super::Grant;
use super::grants::{grant, own_heartbeats};

/// The tools of an operator of the hub.
pub(super) fn tools() -> Vec<Grant> {
    vec![
        grant(
            "read, create and update streams, buckets and consumers, and read messages",
            [
                format!("{API}.INFO"),
                format!("{API}.STREAM.INFO.*"),
                format!("{API}.STREAM.LIST"),
                format!("{API}.STREAM.NAMES"),
                format!("{API}.STREAM.CREATE.*"),
                format!("{API}.STREAM.UPDATE.*"),
                format!("{API}.STREAM.MSG.GET.*"),
                format!("{API}.STREAM.MSG.DELETE.{DEAD}"),
                format!("{API}.STREAM.MSG.DELETE.{DELIVERIES}"),
                format!("{API}.DIRECT.GET.>"),
                format!("{API}.CONSUMER.>"),
                "$JS.FC.>".to_owned(),
                "tidings.checks".to_owned(),
            ],
        ),
        grant(
            "replay and wake deliveries",
            [subject::ALL_DELIVERIES, subject::ALL_PARKED].map(str::to_owned),
        ),
        grant(
            "store how discarded deliveries ended",
            [subject::ALL_OUTCOMES, subject::ALL_DEAD].map(str::to_owned),
        ),
        grant("record who does something", [subject::ALL_AUDIT.to_owned()]),
        Grant {
            purpose: "change records: clusters, circuits, positions",
            subjects: streams::buckets()
                .map(|name| format!("$KV.{name}.>"))
                .collect(),
        },
        grant(
            "ask which Alerts and Providers exist",
            [names::SUBJECT.to_owned()],
        ),
    ]
}

/// `tidings bridge`.
pub(super) fn bridge() -> Vec<Grant> {
    vec![
        grant(
            "read and acknowledge events, with consumers of any name",
            [
                format!("{API}.STREAM.INFO.{EVENTS}"),
                format!("{API}.CONSUMER.CREATE.{EVENTS}.>"),
                format!("{API}.CONSUMER.INFO.{EVENTS}.*"),
                format!("{API}.CONSUMER.MSG.NEXT.{EVENTS}.*"),
                format!("$JS.ACK.{EVENTS}.>"),
            ],
        ),
        grant(
            "republish events as CloudEvents",
            [
                "cloudevents.>".to_owned(),
                format!("{API}.STREAM.CREATE.CLOUDEVENTS"),
                format!("{API}.STREAM.INFO.CLOUDEVENTS"),
            ],
        ),
        grant("report its own processes", [own_heartbeats("bridge")]),
    ]
}
