//! The role ingest: the event endpoint, and what it has of its cluster.

use std::sync::Arc;
use tidings_core::runtime::codes::log as codes;

use anyhow::Context;
use tidings_core::bus::Bus;
use tidings_core::bus::pull::Stop;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::kubernetes;
use tidings_core::runtime::kubernetes::lease::{self, Election};
use tidings_core::runtime::metrics::{Metrics, OutcomeLabel};
use tidings_ingest::kubernetes::Objects;
use tidings_ingest::kubernetes::filter::Filter;
use tidings_ingest::kubernetes::reader::EventReader;
use tidings_ingest::kubernetes::watch::{EventWatch, WatchState};
use tidings_ingest::{BusStore, Ingest};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Takes events by HTTP, and from the cluster where the settings say so.
///
/// # Errors
/// The way to the cluster can't be used.
pub async fn start(
    listener: TcpListener,
    bus: &Bus,
    settings: &Settings,
    health: &Health,
    metrics: &Metrics,
    stop: &Stop,
    roles: &TaskTracker,
) -> anyhow::Result<()> {
    let (kubeconfig, events) = (
        settings.kubernetes.kubeconfig.as_deref(),
        &settings.ingest.kubernetes_events,
    );
    let reads_labels = settings
        .ingest
        .labels
        .unwrap_or_else(|| kubernetes::is_at_hand(kubeconfig));
    let client = if reads_labels || events.watch {
        Some(kubernetes::connect(kubeconfig).await?)
    } else {
        None
    };
    let objects = client
        .clone()
        .filter(|_| reads_labels || events.flux_objects);
    let objects = objects.map(|client| {
        Arc::new(Objects::new(
            client,
            settings.ingest.label_kinds.clone(),
            metrics.clone(),
        ))
    });
    if events.watch {
        let client = client.context("a client was just made")?;
        let watch = event_watch(client, bus, settings, health, metrics, objects.clone());
        let stop = stop.pulling.clone();
        roles.spawn(async move { watch.run(&stop).await });
    }
    tracing::info!(code = codes::LISTENING, role = "ingest", address = %listener.local_addr()?, "listening");
    warn_of_small_payload(bus);
    let counted = metrics.ingested.clone();
    let router = tidings_ingest::router(Ingest {
        store: BusStore(bus.clone()),
        cluster: settings.cluster.clone(),
        objects,
        dedupe_interval: settings.ingest.dedupe_interval,
        observe: Box::new(move |outcome| {
            counted
                .get_or_create(&OutcomeLabel {
                    outcome: outcome.as_str(),
                })
                .inc();
        }),
    });
    roles.spawn(tidings_ingest::serve(
        listener,
        router,
        stop.pulling.clone(),
    ));
    Ok(())
}

fn event_watch(
    client: kube::Client,
    bus: &Bus,
    settings: &Settings,
    health: &Health,
    metrics: &Metrics,
    objects: Option<Arc<Objects>>,
) -> EventWatch {
    let events = &settings.ingest.kubernetes_events;
    let filter = Filter::new(events);
    let namespace = settings.kubernetes.namespace.clone();
    EventWatch {
        election: Election {
            namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            client: client.clone(),
            name: events.lease.clone(),
            identity: lease::identity(),
            check: health.side_check("kubernetes-events-lease"),
        },
        reader: EventReader::new(
            client,
            &filter,
            health.clone(),
            metrics.events_watched.clone(),
        ),
        filter,
        severities: events.severities.clone(),
        store: BusStore(bus.clone()),
        cluster: settings.cluster.clone(),
        objects,
        dedupe_interval: settings.ingest.dedupe_interval,
        metrics: metrics.clone(),
        state: WatchState::new(events.repeat_interval),
    }
}

fn warn_of_small_payload(bus: &Bus) {
    let most = bus.client().max_payload();
    if most < 4 << 20 {
        tracing::warn!(
            code = codes::MAX_PAYLOAD_SMALL,
            max_payload = most,
            "max_payload of the NATS server is smaller than the largest event; larger events are answered with 413"
        );
    }
}
