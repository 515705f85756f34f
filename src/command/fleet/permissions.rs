//! What each user of a fleet may do on the NATS server: one table for the credentials that are
//! issued, and for `docs/reference/permissions.md`.

mod grants;
mod hub;
mod markdown;
mod member;
mod pool_worker;
mod tools;

use tidings_core::bus::streams::{self, EVENTS};
use tidings_core::bus::{events_state, names, records};
use tidings_core::model::access::{API, MEMBER_API};
use tidings_core::model::token::Token;
use tidings_core::model::{guest_consumer, subject};

use super::taps;
pub use markdown::{markdown, section};

/// A user of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// `tidings router`.
    Router,
    /// `tidings worker`.
    Worker,
    /// The tools of an operator of the hub: `tidings dead`, `providers`, `tap`, `fleet`, …
    Tools,
    /// `tidings bridge`.
    Bridge,
    /// `tidings worker` of one pool, outside of the hub.
    PoolWorker {
        /// Its name.
        name: String,
        /// The pool.
        pool: String,
    },
    /// `tidings ingest` of a cluster.
    Member(String),
    /// A reader of the events of a filter: its name and the filter.
    Tap(String, String),
}

/// Subjects that a user needs for one purpose.
pub struct Grant {
    /// The purpose, for the docs.
    pub purpose: &'static str,
    /// The subjects.
    pub subjects: Vec<String>,
}

/// A service of the hub's account that a member may use: the subject in the member's account, and
/// that in the hub's.
pub struct Service {
    pub local: String,
    pub hub: String,
}

/// The subjects of the hub's account that members and taps may use, each as far as its account
/// says. Those whose requests have several answers are marked.
pub fn exports() -> Vec<(String, bool)> {
    let consumer = |action: &str| format!("{API}.CONSUMER.{action}.{EVENTS}.>");
    vec![
        (subject::ALL_EVENTS.to_owned(), false),
        (format!("$KV.{}.>", streams::HEARTBEATS), false),
        (format!("{}>", guest_consumer::PREFIX), false),
        // For accounts that were pushed by an older version, until `tidings fleet update`.
        (consumer("CREATE"), false),
        (consumer("DELETE"), false),
        (consumer("INFO"), false),
        (consumer("MSG.NEXT"), true),
        (format!("$JS.ACK.{EVENTS}.>"), false),
        (format!("{API}.{}", state_record()), false),
        (format!("{API}.{}", cluster_record(">")), false),
    ]
}

fn state_record() -> String {
    record(streams::HUB, events_state::KEY)
}

fn cluster_record(token: &str) -> String {
    record(streams::CLUSTERS, token)
}

/// The request that reads one record.
fn record(bucket: &str, key: &str) -> String {
    format!("DIRECT.GET.KV_{bucket}.{}", records::subject(bucket, key))
}

impl User {
    /// The users of the hub's account, with the names of their files.
    pub const HUB: [(&'static str, Self); 4] = [
        ("router", Self::Router),
        ("worker", Self::Worker),
        ("tools", Self::Tools),
        ("bridge", Self::Bridge),
    ];

    /// The subjects that the user may publish to.
    pub fn publish(&self) -> Vec<Grant> {
        match self {
            Self::Router => hub::router(),
            Self::Worker => hub::worker(),
            Self::Tools => tools::tools(),
            Self::Bridge => tools::bridge(),
            Self::PoolWorker { pool, .. } => pool_worker::pool_worker(pool),
            Self::Member(name) => member::member(&Token::new(name)),
            Self::Tap(name, filter) => taps::permissions::publish(name, filter),
        }
    }

    /// The subjects that the user may subscribe to.
    pub fn subscribe(&self) -> Vec<String> {
        let inbox = format!("{}.>", self.inbox());
        match self {
            Self::Router => vec![
                inbox,
                names::SUBJECT.to_owned(),
                format!("{}>", guest_consumer::PREFIX),
            ],
            Self::Worker => vec![inbox, names::SUBJECT.to_owned()],
            Self::Tools
            | Self::Bridge
            | Self::PoolWorker { .. }
            | Self::Member(_)
            | Self::Tap(..) => vec![inbox],
        }
    }

    fn inbox(&self) -> String {
        match self {
            Self::Router => "_INBOX_router".to_owned(),
            Self::Worker => "_INBOX_worker".to_owned(),
            Self::Tools => "_INBOX_tools".to_owned(),
            Self::Bridge => "_INBOX_bridge".to_owned(),
            Self::PoolWorker { name, .. } | Self::Member(name) => {
                format!("_INBOX_{}", Token::new(name))
            }
            // The account has no other user, so clients need no inbox of their own.
            Self::Tap(..) => "_INBOX".to_owned(),
        }
    }

    /// All subjects that the user may publish to, once each.
    pub fn allowed(&self) -> Vec<String> {
        let grants = self.publish().into_iter();
        let mut subjects: Vec<_> = grants.flat_map(|grant| grant.subjects).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    /// The services of the hub that the account of a member or tap has. Empty for users of the hub.
    pub fn services(&self) -> Vec<Service> {
        if !matches!(self, Self::Member(_) | Self::Tap(..)) {
            return Vec::new();
        }
        let service = |local: String| {
            let created = format!("{MEMBER_API}.CONSUMER.CREATE.{EVENTS}.");
            let hub = if let Some(consumer) = local.strip_prefix(&created) {
                // A router checks the body, which the server does not.
                format!("{}{consumer}", guest_consumer::PREFIX)
            } else if let Some(request) = local.strip_prefix(&format!("{MEMBER_API}.")) {
                format!("{API}.{request}")
            } else {
                local.clone()
            };
            Service { local, hub }
        };
        self.allowed().into_iter().map(service).collect()
    }
}

#[cfg(test)]
mod tests;
