//! What every stage counts: each input ends in exactly one outcome, so that in = sum of outs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// All metrics of a process; the names begin with `tidings_`.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// `tidings_ingest_events_total{outcome}`: accepted, duplicate, invalid, too-large,
    /// not-stored, abandoned.
    pub ingested: Family<OutcomeLabel, Counter>,
    /// `tidings_ingest_kubernetes_events_total{outcome}`: accepted, duplicate, repeated, filtered,
    /// invalid, too-large.
    pub kubernetes_events: Family<OutcomeLabel, Counter>,
    /// `tidings_ingest_kubernetes_events_watched`: 1 in the replica that watches, while its watch
    /// is there.
    pub events_watched: Gauge,
    /// `tidings_ingest_labels_total{outcome}`: looked up for an event: found, not-found, unknown.
    pub labels: Family<OutcomeLabel, Counter>,
    /// `tidings_router_events_total{outcome}`: planned, unmatched, undecodable.
    pub routed: Family<OutcomeLabel, Counter>,
    /// `tidings_router_verdicts_total{verdict}`: for the alerts that an event came near to.
    pub verdicts: Family<VerdictLabel, Counter>,
    /// `tidings_router_deliveries_total{type}`: planned and stored.
    pub planned: Family<TypeLabel, Counter>,
    /// `tidings_router_lost_to_retention_total`: events that EVENTS evicted before this router had
    /// read them.
    pub lost_to_retention: Counter,
    /// `tidings_router_status_writes_total{outcome}`: written, gone, refused, failed (tried
    /// again); of statuses and of Kubernetes Events.
    pub status_writes: Family<OutcomeLabel, Counter>,
    /// `tidings_worker_attempts_total{type,outcome,reason}`.
    pub attempts: Family<AttemptLabels, Counter>,
    /// `tidings_worker_deliveries_total{type,outcome}`: settled for good, or handed on (parked,
    /// requeued, returned).
    pub settled: Family<SettledLabels, Counter>,
    /// `tidings_worker_template_errors_total{type}`: notifications that went out in the standard
    /// form because of their template.
    pub template_errors: Family<TypeLabel, Counter>,
    /// `tidings_worker_held`: messages that this process has taken and not settled.
    pub held: Gauge,
    /// `tidings_worker_circuit_state{namespace,provider,channel}`: 0 closed, 1 half-open, 2 open,
    /// 3 paused; for destinations that have failed or been paused. The channel `*` is the
    /// whole Provider.
    pub circuit_state: Family<CircuitLabels, Gauge>,
    /// `tidings_delivery_seconds{type}`: from receipt of the event to its delivery.
    pub delivery_seconds: Family<TypeLabel, Histogram, fn() -> Histogram>,
    /// `tidings_bus_storage_used_ratio`: of the server's storage, where its size is known.
    pub storage_used: Gauge<f64, AtomicU64>,
    /// `tidings_bus_up`: 1 while there is a connection and every stream is as it must be.
    pub bus_up: Gauge,
    /// `tidings_bus_streams_made_anew_total{stream}`: streams and buckets (`KV_…`) that were gone
    /// while this process ran.
    pub streams_recreated: Family<StreamLabel, Counter>,
    /// `tidings_rules_problems`: rules that are refused or doubtful.
    pub rule_problems: Gauge,
    /// `tidings_rules_snapshots_total`: states of all rules that were put in force.
    pub rule_snapshots: Counter,
    /// `tidings_rules_source_connected`: 1 while the folder or the API server can be read.
    pub rules_source_connected: Gauge,
}

/// The label of a stage's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// A word of the stage's closed set.
    pub outcome: &'static str,
}

/// The label of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabel {
    /// A word of the closed list of verdicts.
    pub verdict: &'static str,
}

/// The label of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabel {
    /// Its name on the server.
    pub stream: String,
}

/// The label of a provider type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// The provider type.
    pub r#type: String,
}

/// The labels of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// The provider type.
    pub r#type: String,
    /// How it ended.
    pub outcome: &'static str,
    /// Why, where it did not deliver.
    pub reason: &'static str,
}

/// The labels of a settled message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SettledLabels {
    /// The provider type.
    pub r#type: String,
    /// What became of the message.
    pub outcome: &'static str,
}

/// The labels of a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CircuitLabels {
    /// The Provider's namespace.
    pub namespace: String,
    /// The Provider's name.
    pub provider: String,
    /// The channel; `*` for the whole Provider.
    pub channel: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let seconds: fn() -> Histogram = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0,
            ])
        };
        let mut metrics = Self {
            registry: Arc::default(),
            ingested: Family::default(),
            kubernetes_events: Family::default(),
            events_watched: Gauge::default(),
            labels: Family::default(),
            routed: Family::default(),
            verdicts: Family::default(),
            planned: Family::default(),
            lost_to_retention: Counter::default(),
            status_writes: Family::default(),
            attempts: Family::default(),
            settled: Family::default(),
            template_errors: Family::default(),
            held: Gauge::default(),
            circuit_state: Family::default(),
            delivery_seconds: Family::new_with_constructor(seconds),
            storage_used: Gauge::default(),
            bus_up: Gauge::default(),
            streams_recreated: Family::default(),
            rule_problems: Gauge::default(),
            rule_snapshots: Counter::default(),
            rules_source_connected: Gauge::default(),
        };
        registry.register(
            "ingest_events",
            "Events taken, by outcome",
            metrics.ingested.clone(),
        );
        registry.register(
            "ingest_kubernetes_events",
            "Kubernetes Events seen, by outcome",
            metrics.kubernetes_events.clone(),
        );
        registry.register(
            "ingest_kubernetes_events_watched",
            "This replica watches",
            metrics.events_watched.clone(),
        );
        registry.register(
            "ingest_labels",
            "Objects looked up, by what is known of them",
            metrics.labels.clone(),
        );
        registry.register(
            "router_events",
            "Events routed, by outcome",
            metrics.routed.clone(),
        );
        registry.register(
            "router_verdicts",
            "Alerts looked at, by verdict",
            metrics.verdicts.clone(),
        );
        registry.register(
            "router_deliveries",
            "Deliveries planned, by provider type",
            metrics.planned.clone(),
        );
        registry.register(
            "router_lost_to_retention",
            "Events evicted before they were routed",
            metrics.lost_to_retention.clone(),
        );
        registry.register(
            "router_status_writes",
            "Writes to the API server, by outcome",
            metrics.status_writes.clone(),
        );
        registry.register(
            "worker_attempts",
            "Attempts, by how they ended",
            metrics.attempts.clone(),
        );
        registry.register(
            "worker_deliveries",
            "Messages settled, by what became of them",
            metrics.settled.clone(),
        );
        registry.register(
            "worker_template_errors",
            "Notifications in the standard form because of an error in their template",
            metrics.template_errors.clone(),
        );
        registry.register(
            "worker_held",
            "Messages taken and not settled",
            metrics.held.clone(),
        );
        registry.register(
            "worker_circuit_state",
            "Whether destinations are called",
            metrics.circuit_state.clone(),
        );
        registry.register(
            "delivery_seconds",
            "From receipt to delivery",
            metrics.delivery_seconds.clone(),
        );
        registry.register(
            "bus_storage_used_ratio",
            "Used part of the server's storage",
            metrics.storage_used.clone(),
        );
        registry.register(
            "bus_up",
            "Connected, and every stream is as it must be",
            metrics.bus_up.clone(),
        );
        registry.register(
            "bus_streams_made_anew",
            "Streams that were gone",
            metrics.streams_recreated.clone(),
        );
        registry.register(
            "rules_problems",
            "Rules that are refused or doubtful",
            metrics.rule_problems.clone(),
        );
        registry.register(
            "rules_snapshots",
            "States of all rules that were put in force",
            metrics.rule_snapshots.clone(),
        );
        registry.register(
            "rules_source_connected",
            "The source of the rules can be read",
            metrics.rules_source_connected.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// All metrics in the text form of Prometheus (OpenMetrics).
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_rendered_under_its_name() {
        let metrics = Metrics::default();
        metrics
            .ingested
            .get_or_create(&OutcomeLabel {
                outcome: "accepted",
            })
            .inc();
        metrics.lost_to_retention.inc_by(3);
        let text = metrics.render();
        assert!(
            text.contains("tidings_ingest_events_total{outcome=\"accepted\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("tidings_router_lost_to_retention_total 3"),
            "{text}"
        );
    }
}
