//! What each user of a fleet may do on the NATS server: one table for the credentials that are
//! issued, and for `docs/reference/permissions.md`.

use tidings_core::bus::readers::{MAX_READERS, reader_name};
use tidings_core::bus::streams::{
    self, AHEAD, CHECKS, DEAD, DELIVERIES, EVENTS, OUTCOMES, ROUTER, SHADOW,
};
use tidings_core::bus::{events_state, names, records};
use tidings_core::model::access::{API, MEMBER_API};
use tidings_core::model::subject;
use tidings_core::model::token::Token;
use tidings_workers::notifier::kinds;

use super::taps;

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
            Self::Router => router(),
            Self::Worker => worker(),
            Self::Tools => tools(),
            Self::Bridge => bridge(),
            Self::PoolWorker { pool, .. } => pool_worker(pool),
            Self::Member(name) => member(&Token::new(name)),
            Self::Tap(name, filter) => taps::permissions::publish(name, filter),
        }
    }

    /// The subjects that the user may subscribe to.
    pub fn subscribe(&self) -> Vec<String> {
        let inbox = format!("{}.>", self.inbox());
        match self {
            Self::Router | Self::Worker => vec![inbox, names::SUBJECT.to_owned()],
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
            let hub = match local.strip_prefix(&format!("{MEMBER_API}.")) {
                Some(request) => format!("{API}.{request}"),
                None => local.clone(),
            };
            Service { local, hub }
        };
        self.allowed().into_iter().map(service).collect()
    }
}

fn member(cluster: &Token) -> Vec<Grant> {
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

fn router() -> Vec<Grant> {
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
        grant("store deliveries", [subject::ALL_DELIVERIES.to_owned()]),
        grant(
            "record what would be delivered, in shadow mode",
            [
                format!("{API}.STREAM.CREATE.{SHADOW}"),
                subject::ALL_SHADOW.to_owned(),
            ],
        ),
        Grant {
            purpose: "read outcomes and dead letters, for the status of Alerts and Providers",
            subjects: [OUTCOMES, DEAD]
                .iter()
                .flat_map(|name| read(name))
                .collect(),
        },
        buckets(
            "keep its position, what it counts, and extension fields",
            &[streams::CONSUMERS, streams::COUNTS, streams::EXTENSIONS],
        ),
        own_heartbeats(),
        follow(&[
            streams::LIMITS,
            streams::EXTENSIONS,
            streams::CLUSTERS,
            streams::CONSUMERS,
        ]),
    ]);
    grants
}

fn worker() -> Vec<Grant> {
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
        own_heartbeats(),
        follow(&[
            streams::LIMITS,
            streams::SUSPECTS,
            streams::EXTENSIONS,
            streams::CLUSTERS,
        ]),
    ]);
    grants
}

/// The worker of one pool. It may not read messages by their sequence, because that cannot be
/// confined to a pool.
fn pool_worker(pool: &str) -> Vec<Grant> {
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
    let (hub, heartbeats) = (Token::new(""), streams::HEARTBEATS);
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
        grant(
            "report its own processes",
            [format!("$KV.{heartbeats}.{hub}.worker.*")],
        ),
        follow(&[streams::LIMITS, streams::SUSPECTS, streams::CLUSTERS]),
    ]
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

fn tools() -> Vec<Grant> {
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

fn bridge() -> Vec<Grant> {
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
        grant(
            "report its own processes",
            [format!("$KV.{}.{}.>", streams::HEARTBEATS, Token::new(""))],
        ),
    ]
}

fn grant<const N: usize>(purpose: &'static str, subjects: [String; N]) -> Grant {
    Grant {
        purpose,
        subjects: subjects.into(),
    }
}

/// The requests that read one message of a stream.
fn get(stream: &str) -> [String; 2] {
    [
        format!("{API}.DIRECT.GET.{stream}"),
        format!("{API}.DIRECT.GET.{stream}.>"),
    ]
}

/// The requests that read a stream in order, with a consumer without a name.
fn read(stream: &str) -> [String; 4] {
    [
        format!("{API}.CONSUMER.CREATE.{stream}"),
        format!("{API}.CONSUMER.CREATE.{stream}.>"),
        format!("{API}.CONSUMER.DELETE.{stream}.*"),
        format!("{API}.CONSUMER.MSG.NEXT.{stream}.*"),
    ]
}

fn buckets(purpose: &'static str, names: &[&str]) -> Grant {
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

/// Processes of the hub have no cluster.
fn own_heartbeats() -> Grant {
    let cluster = Token::new("");
    grant(
        "report its own processes, and the state of `EVENTS` to members",
        [
            format!("$KV.{}.{cluster}.>", streams::HEARTBEATS),
            format!("$KV.{}.{}", streams::HUB, events_state::KEY),
        ],
    )
}

/// The requests that follow the changes of buckets.
fn follow(names: &[&str]) -> Grant {
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

/// The table as Markdown.
pub fn markdown() -> String {
    let mut text =
        "<!-- Written by `make docs`. -->\n\n# Permissions\n\nWhat the credentials that \
                    `tidings fleet` issues may do on the NATS server. `<CLUSTER>` is the encoded \
                    name of a member's cluster, `<POOL>` that of a pool, `<NAME>` that of a worker or \
                    tap, and `<FILTER>` the filter of a tap.\n"
            .to_owned();
    let member = ("member", User::Member("CLUSTER".to_owned()));
    let worker = User::PoolWorker {
        name: "NAME".to_owned(),
        pool: "POOL".to_owned(),
    };
    let worker = ("worker of a pool", worker);
    for (name, user) in User::HUB.into_iter().chain([worker, member]) {
        text.push_str(&section(name, &user).replace("CLUSTER.", "<CLUSTER>."));
    }
    let text = text.replace("-CLUSTER-", "-<CLUSTER>-");
    let text = text
        .replace(".POOL.", ".<POOL>.")
        .replace(".POOL-", ".<POOL>-");
    let mut text = text.replace("_INBOX_NAME", "_INBOX_<NAME>");
    text.push_str(&taps::permissions::section());
    text
}

pub(super) fn section(name: &str, user: &User) -> String {
    let mut text = format!("\n## {name}\n\n| may publish to | in order to |\n|---|---|\n");
    for grant in user.publish() {
        let subjects: Vec<_> = grant
            .subjects
            .iter()
            .map(|subject| format!("`{subject}`"))
            .collect();
        text.push_str(&format!(
            "| {} | {} |\n",
            subjects.join("<br>"),
            grant.purpose
        ));
    }
    let subscribe: Vec<_> = user
        .subscribe()
        .iter()
        .map(|subject| format!("`{subject}`"))
        .collect();
    text.push_str(&format!(
        "\nIt may subscribe to {}.\n",
        subscribe.join(", ")
    ));
    text
}

#[cfg(test)]
mod tests {
    use tidings_core::model::access::matches;

    use super::*;

    fn may(user: &User, subject: &str) -> bool {
        user.allowed().iter().any(|filter| matches(filter, subject))
    }

    #[test]
    fn a_member_may_publish_only_with_its_own_token() {
        let member = User::Member("dev.1".to_owned());
        for (subject, expected) in [
            ("events.dev=2E1.apps.Kustomization.info", true),
            ("events.dev.apps.Kustomization.info", false),
            ("$KV.heartbeats.dev=2E1.ingest.a", true),
            ("$KV.heartbeats.prod.ingest.a", false),
            ("$JS.API.DIRECT.GET.EVENTS", false),
            ("tidings.api.DIRECT.GET.EVENTS", false),
            ("tidings.api.STREAM.INFO.EVENTS", false),
            (
                "tidings.api.CONSUMER.CREATE.EVENTS.router.events.dev=2E1.>",
                false,
            ),
            (
                "tidings.api.CONSUMER.CREATE.EVENTS.ingest-dev=2E1-0.events.dev=2E1.a.b.*",
                true,
            ),
            (
                "tidings.api.CONSUMER.CREATE.EVENTS.ingest-dev=2E1-0.events.prod.>",
                false,
            ),
        ] {
            assert_eq!(may(&member, subject), expected, "{subject}");
        }
        assert_eq!(member.subscribe(), ["_INBOX_dev=2E1.>"]);
    }

    #[test]
    fn a_service_of_a_member_has_the_same_subject_in_the_hub_except_for_the_api() {
        let member = User::Member("dev".to_owned());
        let services = member.services();
        assert_eq!(services.len(), member.allowed().len());
        for service in services {
            let exported = exports()
                .iter()
                .any(|(filter, _)| matches(filter, &service.hub) || *filter == service.hub);
            assert!(exported, "{}", service.hub);
            assert!(!service.local.starts_with("$JS."), "{}", service.local);
        }
    }

    #[test]
    fn no_role_may_change_or_delete_the_streams_of_events_and_deliveries() {
        for (name, user) in User::HUB {
            for subject in [
                "$JS.API.STREAM.DELETE.EVENTS",
                "$JS.API.STREAM.DELETE.DELIVERIES",
                "$JS.API.STREAM.PURGE.EVENTS",
                "$JS.API.STREAM.PURGE.DELIVERIES",
                "events.prod.apps.Kustomization.info",
            ] {
                assert!(!may(&user, subject), "{name} {subject}");
            }
        }
        assert!(!may(&User::Router, "dead.slack.apps.a"));
        assert!(!may(&User::Worker, "$JS.API.CONSUMER.CREATE.EVENTS.router"));
        assert!(!may(&User::Router, "$KV.clusters.dev"));
        assert!(!may(&User::Worker, "$KV.clusters.dev"));
    }
}
