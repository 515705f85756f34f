//! `tidings up`: all roles in one process.

use std::path::PathBuf;

use clap::Args;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::runtime::config::{Flag, Role, Settings};
use tidings_core::runtime::memory::{MemoryLimit, MemoryPlan};

use crate::demo;
use crate::flags::{
    AsFlags, CommonFlags, IngestFlags, KubernetesFlags, RouterFlags, RulesFlags, ShadowFlags,
    WorkerFlags, flag, settings,
};
use crate::nats_server::{NatsServer, Restarter};
use crate::process::{Process, start_log};
use crate::role::{Context, bus, clusters, console, ingest, router, rules, worker};

/// Arguments of `tidings up`.
#[derive(Args, Debug)]
pub struct UpArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    ingest: IngestFlags,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    router: RouterFlags,
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    shadow: ShadowFlags,
    /// Data folder of the embedded nats-server; tools use the folder to find the server [default:
    /// .tidings]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// nats-server executable, 2.12 or later [default: the first found on PATH, next to this
    /// executable, or in .tools/bin of a parent folder]
    #[arg(long, value_name = "FILE", env = "NATS_SERVER", hide_env_values = true)]
    nats_server: Option<PathBuf>,
    /// Run a demo receiver on 127.0.0.1:9095 that prints every delivery
    #[arg(long)]
    demo: bool,
}

impl UpArguments {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = [
            self.kubernetes.flags(),
            self.ingest.flags(),
            self.rules.flags(),
            self.router.flags(),
            self.worker.flags(),
            self.shadow.flags(),
        ]
        .concat();
        flags.extend(self.data.iter().map(|data| flag("--data", "data", data)));
        flags
    }
}

/// Runs all roles on the NATS servers of the settings, or on an embedded nats-server.
///
/// # Errors
/// The settings, the data folder, a port, NATS or the rules cannot be used.
pub async fn run(arguments: UpArguments) -> anyhow::Result<()> {
    let mut flags = arguments.flags();
    let first = settings(&arguments.common, flags.clone())?;
    rules::check_source(&first)?;
    start_log(&first)?;
    if first.nats.url.is_some() {
        return run_roles(first, StreamPolicy::Verify, None, arguments.demo).await;
    }
    let server = {
        let (data, limit) = (first.data, first.nats.storage_limit);
        let memory = MemoryLimit::find(first.memory.limit);
        let memory = MemoryPlan::new(memory, Role::Up).nats_server;
        let executable = arguments.nats_server;
        tokio::task::spawn_blocking(move || {
            NatsServer::start(executable.as_deref(), &data, limit, memory)
        })
        .await??
    };
    let origin = "the embedded nats-server";
    let limit = server.storage_limit.to_string();
    flags.extend(server.contact.flags(origin));
    flags.push(flag(origin, "nats.storage_limit", &limit));
    let restarter = Some(server.restarter());
    // Only this process uses the embedded server, so it may change the streams.
    let result = match settings(&arguments.common, flags) {
        Ok(settings) => run_roles(settings, StreamPolicy::Update, restarter, arguments.demo).await,
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(move || server.stop()).await?;
    result
}

async fn run_roles(
    settings: Settings,
    policy: StreamPolicy,
    restarter: Option<Restarter>,
    demo: bool,
) -> anyhow::Result<()> {
    let listener = ingest::bind(&settings).await?;
    let console_listener = console::bind(&settings).await?;
    let mut process = Process::start(settings, Role::Up).await?;
    if demo {
        demo::start(&mut process, listener.local_addr()?).await?;
    }
    process
        .run(async move |context: &Context| {
            let endpoint = ingest::serve(context, listener).await?;
            let rules = rules::start(context, true).await?;
            let bus = bus::connect(context, policy).await?;
            if let Some(restarter) = restarter {
                let stop = context.stop.holding.clone();
                tokio::spawn(restarter.run(bus.clone(), stop));
            }
            let rules = rules.loaded(&bus).await?;
            rules::answer_names(context, &bus, &rules).await?;
            endpoint.start(context, &bus)?;
            let http_clients = worker::http_clients(context)?;
            let clusters = clusters::start(context, &bus);
            console::start(
                context,
                console_listener,
                &bus,
                &rules,
                &clusters,
                &http_clients,
            )
            .await?;
            router::start(context, &bus, &rules, clusters.clone(), &http_clients).await?;
            worker::start(context, &bus, &rules, clusters, http_clients).await
        })
        .await
}
