//! `tidings ingest`: accepts events by HTTP, and watches Kubernetes Events if enabled.

mod secured;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tidings_core::bus::Bus;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::{Flag, Role, Settings};
use tidings_core::runtime::http_server::connections::Connections;
use tidings_core::runtime::kubernetes::lease::{self, Election};
use tidings_core::runtime::{files, http_server, kubernetes};
use tidings_ingest::http::SMALLEST_MEMORY_FOR_EVENTS;
use tidings_ingest::kubernetes::Objects;
use tidings_ingest::kubernetes::filter::Filter;
use tidings_ingest::kubernetes::reader::EventReader;
use tidings_ingest::kubernetes::watch::{EventWatch, WatchState};
use tidings_ingest::tee::tee;
use tidings_ingest::{BodyBudget, BusStore, Ingest, LateStore, Quota, Tee};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::flags::{AsFlags, CommonFlags, IngestFlags, KubernetesFlags, flag, settings};
use crate::process::{self, Process, start_log};
use crate::role::{Context, bus, edge};

/// The smallest `max_payload` that is enough for the largest event, in bytes.
const SMALLEST_MAX_PAYLOAD: usize = 4 << 20;

/// Arguments of `tidings ingest`.
#[derive(Args, Debug)]
pub struct IngestArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    ingest: IngestFlags,
    /// Store events on an own nats-server and forward them to the hub, so that they are accepted
    /// while the hub cannot be reached
    #[arg(long)]
    edge: bool,
    /// With --edge: data folder of the own nats-server, on a volume that outlives the process
    /// [default: .tidings]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// With --edge: nats-server executable, 2.12 or later [default: the first found on PATH, next
    /// to this executable, or in .tools/bin of a parent folder]
    #[arg(long, value_name = "FILE", env = "NATS_SERVER", hide_env_values = true)]
    nats_server: Option<PathBuf>,
}

impl IngestArguments {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = [self.kubernetes.flags(), self.ingest.flags()].concat();
        flags.extend(self.edge.then(|| flag("--edge", "ingest.edge", "true")));
        flags.extend(self.data.iter().map(|data| flag("--data", "data", data)));
        flags
    }
}

/// Runs ingest until it is stopped.
///
/// # Errors
/// The settings, a port, NATS or the cluster cannot be used.
pub async fn run(arguments: IngestArguments) -> anyhow::Result<()> {
    let settings = settings(&arguments.common, arguments.flags())?;
    bus::check_url(&settings)?;
    start_log(&settings)?;
    if settings.ingest.edge {
        return edge::run(settings, arguments.nats_server).await;
    }
    let listener = bind(&settings).await?;
    Process::start(settings, Role::Ingest)
        .await?
        .run(async move |context: &Context| {
            let endpoint = serve(context, listener).await?;
            let bus = bus::connect(context, StreamPolicy::Wait).await?;
            endpoint.start(context, &bus)
        })
        .await
}

/// Binds the address for events. Runs before anything else, so that a wrong address fails at once.
///
/// # Errors
/// The address cannot be used.
pub async fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    process::bind("listen", settings.listen).await
}

/// An endpoint that answers 503 until it is started.
pub struct Endpoint {
    store: LateStore,
    client: Option<kube::Client>,
    objects: Option<Arc<Objects>>,
}

/// Starts to answer requests. Until [`Endpoint::start`] events are refused with 503, so that no
/// sender waits for the bus.
///
/// # Errors
/// The Kubernetes API cannot be used.
pub async fn serve(context: &Context, listener: TcpListener) -> anyhow::Result<Endpoint> {
    let settings = &context.settings;
    let kubeconfig = settings.kubernetes.kubeconfig.as_deref();
    let events = &settings.ingest.kubernetes_events;
    let reads_labels = settings
        .ingest
        .labels
        .unwrap_or_else(|| kubernetes::is_configured(kubeconfig));
    let reviews_tokens = settings.ingest.auth.token_review.enabled;
    let client = if reads_labels || events.watch || reviews_tokens {
        Some(kubernetes::connect(kubeconfig).await?)
    } else {
        None
    };
    let objects = client
        .clone()
        .filter(|_| reads_labels || events.flux_objects)
        .map(|client| {
            let kinds = settings.ingest.label_kinds.clone();
            Arc::new(Objects::new(client, kinds, context.metrics.clone()))
        });
    let address = listener.local_addr()?;
    let ingested = context.metrics.ingest_events_total.clone();
    let store = LateStore::default();
    let (memory, metrics) = (context.memory, context.metrics.clone());
    let bytes = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
    let events = bytes(memory.ingesting).max(SMALLEST_MEMORY_FOR_EVENTS) / 1024;
    let tee = match settings.ingest.tee.url.clone() {
        Some(url) => Some(start_tee(context, url)?),
        None => None,
    };
    let router = tidings_ingest::router(Ingest {
        store: store.clone(),
        authentication: secured::authentication(context, client.clone())?,
        cluster: settings.cluster.clone(),
        objects: objects.clone(),
        tee,
        dedupe_interval: settings.ingest.dedupe_interval,
        bodies: BodyBudget::new(bytes(memory.bodies), metrics.ingest_body_bytes.clone()),
        events: Arc::new(Semaphore::new(events.min(Semaphore::MAX_PERMITS))),
        observe: Box::new(move |outcome| {
            ingested.get_or_create(outcome).inc();
        }),
    });
    // A connection with TLS has buffers for records, too.
    let uses_tls = settings.ingest.tls.cert.is_some();
    let affordable = memory.connections / if uses_tls { 2 } else { 1 };
    let most = settings.ingest.connections.unwrap_or(affordable);
    let most = files::connections_within(most, files::raise_limit());
    let connections = Connections::new(most, metrics.ingest_connections.clone());
    let tls = secured::tls(context, most)?;
    let stop = context.stop.pulling.clone();
    secured::warn_about_plaintext(settings, address);
    tracing::info!(code = codes::LISTENING, role = "ingest", %address, "listening");
    let serving = http_server::serve_with(listener, router, connections, tls, metrics, stop);
    context.tasks.spawn(serving);
    Ok(Endpoint {
        store,
        client,
        objects,
    })
}

/// Starts to send copies of events. At shutdown it goes on until the queue is empty or the grace
/// period ends.
fn start_tee(context: &Context, url: reqwest::Url) -> anyhow::Result<Tee> {
    let memory = usize::try_from(context.memory.tee).unwrap_or(usize::MAX);
    let counter = context.metrics.ingest_tee_total.clone();
    let started = tee(url, memory, counter);
    let (tee, sender) = started.context("cannot read the system's CA certificates")?;
    let stop = context.stop.holding.clone();
    context.tasks.spawn(sender.run(stop));
    Ok(tee)
}

impl Endpoint {
    /// Starts to store events. Also watches Kubernetes Events if the settings enable it.
    ///
    /// # Errors
    /// The settings enable it, and there is no client.
    pub fn start(self, context: &Context, bus: &Bus) -> anyhow::Result<()> {
        let cluster = context.settings.cluster.clone();
        let quota = Quota::default();
        let stop = context.stop.holding.clone();
        tokio::spawn(quota.clone().follow(bus.clone(), cluster, stop));
        let store = self.start_storing(context, bus, quota)?;
        let (bus, cluster) = (bus.clone(), context.settings.cluster.clone());
        let check = context.health.check("publish", None);
        let stop = context.stop.holding.clone();
        tokio::spawn(async move {
            let report = |problem| store.set_problem(problem);
            bus.watch_permission(&cluster, &check, stop, report).await;
        });
        Ok(())
    }

    /// Starts to store events on this bus. Also watches Kubernetes Events if the settings say so.
    ///
    /// # Errors
    /// The settings enable it, and there is no client.
    pub fn start_storing(
        self,
        context: &Context,
        bus: &Bus,
        quota: Quota,
    ) -> anyhow::Result<LateStore> {
        let store = BusStore::new(bus.clone(), quota);
        if context.settings.ingest.kubernetes_events.watch {
            let client = self.client.context("watching events needs a client")?;
            let watch = event_watch(context, client, &store, self.objects);
            let stop = context.stop.pulling.clone();
            context.tasks.spawn(async move { watch.run(&stop).await });
        }
        warn_if_max_payload_is_small(bus);
        self.store.connect(store);
        Ok(self.store)
    }
}

fn event_watch(
    context: &Context,
    client: kube::Client,
    store: &BusStore,
    objects: Option<Arc<Objects>>,
) -> EventWatch {
    let (settings, metrics) = (&context.settings, &context.metrics);
    let events = &settings.ingest.kubernetes_events;
    let filter = Filter::new(events);
    let namespace = settings.kubernetes.namespace.clone();
    EventWatch {
        election: Election {
            namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            client: client.clone(),
            name: events.lease.clone(),
            identity: lease::identity(),
            check: context.health.optional_check("kubernetes-events-lease"),
        },
        reader: EventReader::new(
            client,
            &filter,
            context.health.clone(),
            metrics.ingest_kubernetes_events_watched.clone(),
        ),
        filter,
        severities: events.severities.clone(),
        store: store.clone(),
        cluster: settings.cluster.clone(),
        objects,
        dedupe_interval: settings.ingest.dedupe_interval,
        metrics: metrics.clone(),
        state: WatchState::new(events.repeat_interval),
    }
}

fn warn_if_max_payload_is_small(bus: &Bus) {
    let max_payload = bus.client().max_payload();
    if max_payload < SMALLEST_MAX_PAYLOAD {
        tracing::warn!(
            code = codes::MAX_PAYLOAD_SMALL,
            max_payload,
            "max_payload of the NATS server is too small for the largest events, they are rejected"
        );
    }
}
