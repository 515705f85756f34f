//! What a member may do.

use tidings_core::bus::readers::{MAX_READERS, reader_name};
use tidings_core::bus::streams::{self, EVENTS};
use tidings_core::model::access::MEMBER_API;
use tidings_core::model::token::Token;

use super::grants::grant;
use super::{Grant, cluster_record, state_record};

/// `tidings ingest` of a cluster.
pub(super) fn member(cluster: &Token) -> Vec<Grant> {
    let readers = || (0..MAX_READERS).map(|number| reader_name(cluster, number));
    let requests = |request: &dyn Fn(String) -> String| {
        let requests = readers().map(|name| format!("{MEMBER_API}.CONSUMER.{}", request(name)));
        requests.collect::<Vec<_>>()
    };
    vec![
        grant("store its own events", [format!("events.{cluster}.>")]),
        grant(
            "report its own processes",
            [format!("$KV.{}.{cluster}.ingest.*", streams::HEARTBEATS)],
        ),
        Grant {
            purpose: "read its own events, with consumers of these names and this filter",
            subjects: [
                requests(&|name| format!("CREATE.{EVENTS}.{name}.events.{cluster}.>")),
                requests(&|name| format!("MSG.NEXT.{EVENTS}.{name}")),
                requests(&|name| format!("DELETE.{EVENTS}.{name}")),
            ]
            .concat(),
        },
        grant(
            "read the state of `EVENTS` and of the storage, which routers report",
            [format!("{MEMBER_API}.{}", state_record())],
        ),
        grant(
            "read its own quota",
            [format!("{MEMBER_API}.{}", cluster_record(cluster.as_str()))],
        ),
    ]
}
