//! All metrics of a process.
//!
//! One entry of the table below is one metric: its field in [`Metrics`], its name, its labels, its
//! help text and its row in `docs/reference/metrics.md` (`make docs`) follow from it. Names have
//! the form `tidings_<subsystem>_<what>_<unit|total>`; the field is the name without `tidings_`.

pub(super) mod bounded;
pub mod labels;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::notice::{NoticeExclusion, NoticeKind};
use crate::model::verdict::Verdict;
use crate::runtime::config::Role;
use bounded::{BoundedNames, MOST_CLUSTERS, MOST_PROVIDERS, OTHER};
use labels::{
    AttemptLabels, AuthenticationOutcome, BridgeOutcome, BuildLabels, CircuitLabels, ClusterLabel,
    ConsoleOutcome, DeliveryLabels, EdgeOutcome, HandshakeFailure, KilledBy,
    KubernetesEventOutcome, Label, LabelLookup, Labels, LostFrom, QueueLabels, RequestOutcome,
    RoutingOutcome, ShadowLabels, SourceLabel, SpanOutcome, StatusWriteOutcome, StreamLabel,
    TeeOutcome, TraceLabel, TypeLabel,
};

/// One metric, as the docs list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRow {
    /// The full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels, with their values where these are a closed set.
    pub labels: Vec<Label>,
    /// What it measures.
    pub help: &'static str,
}

/// A type of metric that can describe itself.
trait Described {
    const KIND: &'static str;

    fn labels() -> Vec<Label> {
        Vec::new()
    }
}

impl Described for Counter {
    const KIND: &'static str = "counter";
}

impl<N, A> Described for Gauge<N, A> {
    const KIND: &'static str = "gauge";
}

impl Described for Histogram {
    const KIND: &'static str = "histogram";
}

impl<S: Labels, M: Described, C> Described for Family<S, M, C> {
    const KIND: &'static str = M::KIND;

    fn labels() -> Vec<Label> {
        S::labels()
    }
}

/// A histogram whose buckets name the trace of an observation, if there are traces.
type Histogram = HistogramWithExemplars<TraceLabel>;

/// A histogram of seconds, by labels.
type Seconds<S> = Family<S, Histogram, fn() -> Histogram>;

fn seconds<S: Clone + Eq + std::hash::Hash>() -> Seconds<S> {
    Family::new_with_constructor(|| {
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0,
        ];
        Histogram::new(buckets.into_iter())
    })
}

macro_rules! metrics {
    ($($field:ident: $type:ty = $new:expr, $help:literal;)*) => {
        /// All metrics of a process. Clones share their values.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            providers: Arc<BoundedNames>,
            clusters: Arc<BoundedNames>,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// The metrics whose field `is_exported` selects are rendered.
            fn exporting(is_exported: impl Fn(&str) -> bool) -> Self {
                let mut registry = Registry::with_prefix("tidings");
                $(let $field: $type = $new;
                // The registry adds `_total` to the name of a counter and a period to the help.
                if is_exported(stringify!($field)) {
                    registry.register(
                        stringify!($field).trim_end_matches("_total"),
                        $help.trim_end_matches('.'),
                        $field.clone(),
                    );
                })*
                Self {
                    registry: Arc::new(registry),
                    providers: Arc::new(BoundedNames::new(MOST_PROVIDERS)),
                    clusters: Arc::new(BoundedNames::new(MOST_CLUSTERS)),
                    $($field,)*
                }
            }

            /// Every metric, in the order of the table.
            pub fn table() -> Vec<MetricRow> {
                vec![$(MetricRow {
                    name: concat!("tidings_", stringify!($field)),
                    kind: <$type as Described>::KIND,
                    labels: <$type as Described>::labels(),
                    help: $help,
                }),*]
            }
        }
    };
}

metrics! {
    build_info: Family<BuildLabels, Gauge> = Family::default(),
        "1, with the version of Tidings and its commit.";
    last_event_timestamp_seconds: Family<ClusterLabel, Gauge> = Family::default(),
        "When the last event of a cluster was received, in seconds since 1970: of its own cluster \
         for ingest, of every cluster whose events it routed for a router. 0 before the first. \
         After the first 500 clusters, the cluster is `(other)`.";
    ingest_events_total: Family<RequestOutcome, Counter> = Family::default(),
        "Requests to the event endpoint, by outcome.";
    ingest_connections: Gauge = Gauge::default(),
        "Open connections to the event endpoint.";
    ingest_tls_handshakes: Gauge = Gauge::default(),
        "TLS handshakes of the event endpoint that are in progress.";
    ingest_tls_handshakes_failed_total: Family<HandshakeFailure, Counter> = Family::default(),
        "TLS handshakes of the event endpoint that failed, by reason.";
    ingest_tls_certificate_expire_timestamp_seconds: Gauge = Gauge::default(),
        "When the certificate of the event endpoint expires, in seconds since 1970; 0 without TLS.";
    ingest_authentications_total: Family<AuthenticationOutcome, Counter> = Family::default(),
        "Checks of senders' tokens, by outcome. Without `ingest.auth` there are none.";
    http_connections_closed_total: Counter = Counter::default(),
        "Connections to the event and admin endpoints that were closed or refused because too many \
         were open.";
    ingest_body_bytes: Gauge = Gauge::default(),
        "Memory for bodies that arrive, in bytes.";
    ingest_tee_total: Family<TeeOutcome, Counter> = Family::default(),
        "Copies of stored events for `ingest.tee.url`, by outcome.";
    ingest_kubernetes_events_total: Family<KubernetesEventOutcome, Counter> = Family::default(),
        "Kubernetes Events that ingest read, by outcome.";
    ingest_kubernetes_events_watched: Gauge = Gauge::default(),
        "1 in the replica that watches Kubernetes Events, while its watch is open; else 0.";
    ingest_label_lookups_total: Family<LabelLookup, Counter> = Family::default(),
        "Lookups of an event's object for its labels, by outcome.";
    router_events_total: Family<RoutingOutcome, Counter> = Family::default(),
        "Events that the router processed, by outcome.";
    router_verdicts_total: Family<Verdict, Counter> = Family::default(),
        "Verdicts of alerts whose event sources name the event's object.";
    router_deliveries_total: Family<TypeLabel, Counter> = Family::default(),
        "Deliveries planned and stored, by provider type.";
    router_shadow_records_total: Family<ShadowLabels, Counter> = Family::default(),
        "Deliveries that shadow mode recorded instead of storing them, by provider type and \
         outcome.";
    router_events_returned_total: Counter = Counter::default(),
        "Events that were returned to the server, because many events of their namespace with \
         costly patterns waited.";
    router_events_postponed_total: Counter = Counter::default(),
        "Events of a member that were routed without its rules, because these were not read yet. \
         They are matched with them later.";
    router_postponed_gone_total: Counter = Counter::default(),
        "Postponed events that the stream EVENTS dropped before the rules of their member were \
         read. Above 0: the Alerts of this member never saw them.";
    router_postponed_failures_total: Counter = Counter::default(),
        "Failed attempts to match a postponed event with the rules of its member. The event is \
         tried again within a minute.";
    router_notices_total: Family<NoticeKind, Counter> = Family::default(),
        "Notices of the watchdog and of the fallback that were stored for delivery.";
    router_notices_excluded_total: Family<NoticeExclusion, Counter> = Family::default(),
        "Failures that no fallback notice reports, because they are those of notices. Above 0: \
         look at the Providers of the watchdog and the fallback.";
    router_lost_to_retention_total: Counter = Counter::default(),
        "Events that the stream EVENTS evicted before a router read them. Above 0: events are \
         lost.";
    router_status_writes_total: Family<StatusWriteOutcome, Counter> = Family::default(),
        "Writes of statuses and Kubernetes Events to the API server, by outcome.";
    worker_attempts_total: Family<AttemptLabels, Counter> = Family::default(),
        "Attempts, by provider type, outcome, reason of the failure, and Provider. After the first \
         500 Providers of a process, namespace and Provider are `(other)`.";
    worker_deliveries_total: Family<DeliveryLabels, Counter> = Family::default(),
        "Deliveries that a worker finished or released, by provider type, outcome and Provider. \
         After the first 500 Providers of a process, namespace and Provider are `(other)`.";
    worker_template_errors_total: Family<TypeLabel, Counter> = Family::default(),
        "Attempts that sent the standard text because their template failed.";
    worker_state_conflicts_total: Family<TypeLabel, Counter> = Family::default(),
        "Attempts that wrote a commit status whose id another cluster writes, too.";
    expression_children_killed_total: Family<KilledBy, Counter> = Family::default(),
        "Child processes that were killed while they evaluated an expression, by cause.";
    worker_deliveries_in_flight: Gauge = Gauge::default(),
        "Deliveries that this process pulled and has not finished or released.";
    worker_memory_bytes: Gauge = Gauge::default(),
        "Memory that is reserved for deliveries in flight, in bytes.";
    worker_circuit_state: Family<CircuitLabels, Gauge> = Family::default(),
        "Circuit breaker of each destination that failed or is paused: 0 closed, 1 half-open, \
         2 open, 3 paused. The channel `*` is the whole Provider, and `sha256:…` stands for a \
         secret channel.";
    worker_delivery_seconds: Seconds<TypeLabel> = seconds(),
        "Time from receipt of the event to its delivery, in seconds.";
    bridge_events_total: Family<BridgeOutcome, Counter> = Family::default(),
        "Events that the bridge finished, by outcome.";
    bridge_retries_total: Counter = Counter::default(),
        "Events that the bridge sent without success and sends again.";
    bridge_events_in_flight: Gauge = Gauge::default(),
        "Events that the bridge pulled and has not finished.";
    bridge_events_pending: Gauge = Gauge::default(),
        "Events that wait for the bridge in the stream EVENTS, as of ten seconds ago at most.";
    bridge_events_missed_total: Counter = Counter::default(),
        "Events that the stream EVENTS evicted before the bridge read them. Counted by bridges \
         without --filter.";
    edge_events_total: Family<EdgeOutcome, Counter> = Family::default(),
        "Events that an edge (`ingest --edge`) sent to the hub, by outcome.";
    edge_events_waiting: Gauge = Gauge::default(),
        "Events that an edge stored and that the hub does not have yet.";
    edge_oldest_waiting_seconds: Gauge<f64, AtomicU64> = Gauge::default(),
        "How long the oldest event of an edge has waited for the hub, in seconds.";
    edge_hub_up: Gauge = Gauge::default(),
        "1 while the hub takes the events of an edge; 0 while it cannot be reached, has no room, \
         or its server does not accept the next event.";
    fleet_edge_events_waiting: Family<ClusterLabel, Gauge> = Family::default(),
        "Events that wait on the edges of a cluster, as these last reported to the hub. The \
         cluster `*` is the sum of clusters beyond the 500 with the most. Only up and routers have \
         it, and every router shows the same number: use `max`.";
    fleet_edge_oldest_waiting_seconds: Family<ClusterLabel, Gauge<f64, AtomicU64>>
        = Family::default(),
        "How long the oldest event on the edges of a cluster has waited for the hub, in seconds. \
         It rises while an edge with events is silent. Only up and routers have it.";
    console_requests_total: Family<ConsoleOutcome, Counter> = Family::default(),
        "Requests to the API of the console, by outcome.";
    console_connections: Gauge = Gauge::default(),
        "Open connections to the console.";
    console_streams: Gauge = Gauge::default(),
        "Live streams of events that the console sends.";
    console_tls_handshakes: Gauge = Gauge::default(),
        "TLS handshakes of the console that are in progress.";
    console_tls_handshakes_failed_total: Family<HandshakeFailure, Counter> = Family::default(),
        "TLS handshakes of the console that failed, by reason.";
    console_tls_certificate_expire_timestamp_seconds: Gauge = Gauge::default(),
        "When the certificate of the console expires, in seconds since 1970; 0 without TLS.";
    trace_spans_total: Family<SpanOutcome, Counter> = Family::default(),
        "Spans of recorded traces for `otlp.endpoint`, by outcome.";
    bus_storage_used_ratio: Gauge<f64, AtomicU64> = Gauge::default(),
        "Used part of the NATS server's storage, from 0 to 1, where its size is known.";
    memory_limit_bytes: Gauge = Gauge::default(),
        "Memory that the process may use, with its nats-server (`memory.limit`).";
    bus_up: Gauge = Gauge::default(),
        "1 while NATS is connected and every stream has its expected configuration; else 0.";
    bus_streams_recreated_total: Family<StreamLabel, Counter> = Family::default(),
        "Streams and buckets (`KV_…`) that were deleted and recreated. Above 0: their \
         messages are lost.";
    deliveries_ready: Family<QueueLabels, Gauge> = Family::default(),
        "Deliveries that wait for a worker, by pool and provider type. Parked deliveries are not \
         included. The pool `*` is the sum of pools beyond the first 500. Only up and routers have \
         it, and every router shows the same number: use `max`.";
    deliveries_parked: Gauge = Gauge::default(),
        "Deliveries that are parked until their next attempt. Only up and routers have it.";
    oldest_ready_seconds: Gauge<f64, AtomicU64> = Gauge::default(),
        "How long the oldest ready delivery has waited for a worker, in seconds. Only up and \
         routers have it.";
    events_unrouted: Gauge = Gauge::default(),
        "Events that no router has finished. Only up and routers have it.";
    nats_credentials_expire_timestamp_seconds: Gauge = Gauge::default(),
        "When the process's credentials for NATS expire, in seconds since 1970; 0 if they do not, \
         or it is not known.";
    deliveries_lost_total: Family<LostFrom, Counter> = Family::default(),
        "Deliveries that are gone from the stream DELIVERIES without an acknowledgement, or that \
         its consumers skipped. Every router and worker shows the same number, which survives \
         restarts: use `max`.";
    rules_problems: Gauge = Gauge::default(),
        "Problems of the rules: errors, which reject an object, and warnings.";
    rules_extensions_lost: Gauge = Gauge::default(),
        "Alerts and Providers that had extension fields, which the API server dropped. Routers \
         only.";
    rules_restrictions_kept: Gauge = Gauge::default(),
        "Alerts that lost `clusters` and keep the last known clusters. Routers only.";
    rules_snapshots_total: Counter = Counter::default(),
        "Snapshots of the rules that were put into use.";
    rules_source_connected: Gauge = Gauge::default(),
        "1 while all sources of rules, folders and API servers, can be read; else 0. Only up, \
         router and worker have it.";
    rules_source_up: Family<SourceLabel, Gauge> = Family::default(),
        "1 while a source of rules is read and can be read; else 0. The source is `cluster`, \
         `folder`, or the name of a member.";
    rules_source_problems: Family<SourceLabel, Gauge> = Family::default(),
        "Problems of the rules of a source.";
}

/// The fields that only roles with a router set.
const WORKLOAD: [&str; 6] = [
    "fleet_edge_events_waiting",
    "fleet_edge_oldest_waiting_seconds",
    "deliveries_ready",
    "deliveries_parked",
    "oldest_ready_seconds",
    "events_unrouted",
];

impl Default for Metrics {
    fn default() -> Self {
        Self::exporting(|_| true)
    }
}

impl Metrics {
    /// The metrics of a role. Those about rules are not rendered for a role that reads none, where
    /// they would look like a failure, and those about what waits only for a role that counts it.
    /// Those of a bridge are rendered only there, and those of the console where it can run.
    pub fn of(role: Role) -> Self {
        Self::exporting(|field| match field {
            _ if field.starts_with("rules_") => role.reads_rules(),
            _ if field.starts_with("bridge_") => role == Role::Bridge,
            _ if field.starts_with("edge_") => role == Role::Ingest,
            _ if field.starts_with("console_") => role.routes(),
            _ if WORKLOAD.contains(&field) => role.routes(),
            _ => true,
        })
    }

    /// The namespace and the name of a Provider as labels.
    pub fn provider_labels(&self, namespace: &str, name: &str) -> (String, String) {
        match self.providers.has(&format!("{namespace}/{name}")) {
            true => (namespace.to_owned(), name.to_owned()),
            false => (OTHER.to_owned(), OTHER.to_owned()),
        }
    }

    /// Notes when the last event of a cluster was received, in seconds since 1970.
    pub fn note_last_event(&self, cluster: &str, second: i64) {
        // A clock of an edge that is ahead must not hide that its cluster becomes silent.
        let second = second.min(jiff::Timestamp::now().as_second());
        let cluster = match self.clusters.has(cluster) {
            true => cluster,
            false => OTHER,
        };
        let cluster = cluster.to_owned();
        let gauge = self
            .last_event_timestamp_seconds
            .get_or_create(&ClusterLabel { cluster })
            .clone();
        gauge.inner().fetch_max(second, Ordering::Relaxed);
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::labels::NotAttempted;
    use super::*;
    use crate::model::outcome::{Outcome, Reason};

    #[test]
    fn every_metric_is_rendered_under_the_name_and_type_of_its_row() {
        let text = Metrics::default().render();
        for row in Metrics::table() {
            assert_eq!(
                row.kind == "counter",
                row.name.ends_with("_total"),
                "{}",
                row.name
            );
            // A family without samples is not rendered.
            if !row.labels.is_empty() {
                continue;
            }
            let name = row.name.trim_end_matches("_total");
            let line = format!("# TYPE {name} {}\n", row.kind);
            assert!(text.contains(&line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn only_roles_that_read_rules_export_metrics_about_rules() {
        for role in [Role::Up, Role::Router, Role::Worker] {
            let text = Metrics::of(role).render();
            assert!(text.contains("tidings_rules_source_connected"), "{role:?}");
        }
        for (role, is_bridge) in [(Role::Ingest, false), (Role::Bridge, true)] {
            let text = Metrics::of(role).render();
            assert!(!text.contains("tidings_rules_") && text.contains("tidings_bus_up"));
            let has_bridge = text.contains("tidings_bridge_");
            assert_eq!(has_bridge, is_bridge, "{role:?}");
        }
    }

    #[test]
    fn providers_and_clusters_beyond_the_cap_share_a_label() {
        let metrics = Metrics::default();
        for number in 0..=MOST_PROVIDERS {
            metrics.provider_labels("apps", &number.to_string());
            metrics.note_last_event(&format!("c{number}"), 5);
        }
        let own = ("apps".to_owned(), "0".to_owned());
        assert_eq!(metrics.provider_labels("apps", "0"), own);
        let other = (OTHER.to_owned(), OTHER.to_owned());
        assert_eq!(metrics.provider_labels("apps", "late"), other);
        metrics.note_last_event("c0", 4);
        let text = metrics.render();
        for line in [
            r#"tidings_last_event_timestamp_seconds{cluster="c0"} 5"#,
            r#"tidings_last_event_timestamp_seconds{cluster="(other)"} 5"#,
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn only_roles_that_route_export_what_waits() {
        for (role, routes) in [
            (Role::Up, true),
            (Role::Router, true),
            (Role::Worker, false),
            (Role::Ingest, false),
        ] {
            let text = Metrics::of(role).render();
            let is_exported = text.contains("tidings_events_unrouted");
            assert_eq!(is_exported, routes, "{role:?}");
        }
    }

    #[test]
    fn labels_are_rendered_as_the_table_lists_them() {
        let metrics = Metrics::default();
        let attempt = |outcome, reason| AttemptLabels {
            r#type: "slack".to_owned(),
            outcome,
            reason,
            namespace: "apps".to_owned(),
            provider: "chat".to_owned(),
        };
        let labels = attempt(Outcome::Dead, Some(Reason::NotFound));
        metrics.worker_attempts_total.get_or_create(&labels).inc();
        let labels = attempt(Outcome::Delivered, None);
        metrics.worker_attempts_total.get_or_create(&labels).inc();
        let labels = DeliveryLabels {
            r#type: "slack".to_owned(),
            outcome: NotAttempted::NoPermit.into(),
            namespace: "apps".to_owned(),
            provider: "chat".to_owned(),
        };
        metrics.worker_deliveries_total.get_or_create(&labels).inc();
        let verdict = &Verdict::Matched;
        metrics.router_verdicts_total.get_or_create(verdict).inc();
        metrics.router_lost_to_retention_total.inc_by(3);
        let text = metrics.render();
        let of_chat = |what: &str, labels: &str| {
            let provider = r#"namespace="apps",provider="chat""#;
            format!(r#"tidings_worker_{what}_total{{type="slack",{labels},{provider}}} 1"#)
        };
        for line in [
            of_chat("attempts", r#"outcome="dead",reason="not-found""#),
            of_chat("attempts", r#"outcome="delivered",reason="""#),
            of_chat("deliveries", r#"outcome="no-permit""#),
            r#"tidings_router_verdicts_total{verdict="matched"} 1"#.to_owned(),
            "tidings_router_lost_to_retention_total 3".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} in:\n{text}");
        }
        let names = |row: &MetricRow| {
            row.labels
                .iter()
                .map(|label| label.name)
                .collect::<Vec<_>>()
        };
        let table = Metrics::table();
        let row = |name| table.iter().find(|row| row.name == name).unwrap();
        assert_eq!(
            names(row("tidings_worker_attempts_total")),
            ["type", "outcome", "reason", "namespace", "provider"]
        );
        assert_eq!(names(row("tidings_router_verdicts_total")), ["verdict"]);
    }
}
