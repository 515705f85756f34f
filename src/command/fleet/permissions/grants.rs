//! Grants that several users have.

use tidings_core::bus::streams;
use tidings_core::model::access::API;
use tidings_core::model::token::Token;

use super::Grant;

/// A fixed list of subjects for one purpose.
pub(super) fn grant<const N: usize>(purpose: &'static str, subjects: [String; N]) -> Grant {
    Grant {
        purpose,
        subjects: subjects.into(),
    }
}

/// The keys of the reports of a role of the hub. Processes of the hub have no cluster.
pub(super) fn own_heartbeats(role: &str) -> String {
    let cluster = Token::new("");
    format!("$KV.{}.{cluster}.{role}.*", streams::HEARTBEATS)
}

/// The requests that read one message of a stream.
pub(super) fn get(stream: &str) -> [String; 2] {
    [
        format!("{API}.DIRECT.GET.{stream}"),
        format!("{API}.DIRECT.GET.{stream}.>"),
    ]
}

/// The requests that read a stream in order, with a consumer without a name.
pub(super) fn read(stream: &str) -> [String; 4] {
    [
        format!("{API}.CONSUMER.CREATE.{stream}"),
        format!("{API}.CONSUMER.CREATE.{stream}.>"),
        format!("{API}.CONSUMER.DELETE.{stream}.*"),
        format!("{API}.CONSUMER.MSG.NEXT.{stream}.*"),
    ]
}

/// The subjects that write the records of buckets.
pub(super) fn buckets(purpose: &'static str, names: &[&str]) -> Grant {
    let subjects = names.iter().flat_map(|name| {
        [
            format!("$KV.{name}.>"),
            format!("{API}.STREAM.PURGE.KV_{name}"),
        ]
    });
    Grant {
        purpose,
        subjects: subjects.collect(),
    }
}

/// The requests that follow the changes of buckets.
pub(super) fn follow(names: &[&str]) -> Grant {
    let mut subjects: Vec<String> = names
        .iter()
        .flat_map(|name| read(&format!("KV_{name}")))
        .collect();
    subjects.push("$JS.FC.>".to_owned());
    Grant {
        purpose: "follow the changes of records",
        subjects,
    }
}
