//! The roles as subcommands: what each is made of.

pub mod ingest;
pub mod rules;
pub mod status_writer;

use std::path::PathBuf;

use clap::Args;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::runtime::config::Role;

use crate::demo;
use crate::flags::{
    AsFlags, CommonFlags, IngestFlags, KubernetesFlags, RouterFlags, RulesFlags, WorkerFlags, flag,
    settings,
};
use crate::nats_server::NatsServer;
use crate::process::{Parts, Process};

/// What `tidings up` takes.
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
    /// The folder for the embedded nats-server's data and nats.json
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The nats-server to start; else the one on PATH, beside this executable, or installed by
    /// `make build`
    #[arg(long, value_name = "FILE", env = "NATS_SERVER", hide_env_values = true)]
    nats_server: Option<PathBuf>,
    /// Bring along a receiver on 127.0.0.1:9095 that shows in the terminal what it gets
    #[arg(long)]
    demo: bool,
}

/// What `tidings ingest` takes.
#[derive(Args, Debug)]
pub struct IngestArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    ingest: IngestFlags,
}

/// What `tidings router` takes.
#[derive(Args, Debug)]
pub struct RouterArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    router: RouterFlags,
}

/// What `tidings worker` takes.
#[derive(Args, Debug)]
pub struct WorkerArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    worker: WorkerFlags,
}

/// All roles in one process.
///
/// # Errors
/// The settings, the data folder, a port, NATS or the rules can't be used.
pub async fn up(arguments: UpArguments) -> anyhow::Result<()> {
    let UpArguments {
        common,
        kubernetes,
        ingest,
        rules,
        router,
        worker,
        data,
        nats_server,
        demo,
    } = arguments;
    let mut flags = [
        kubernetes.flags(),
        ingest.flags(),
        rules.flags(),
        router.flags(),
        worker.flags(),
    ]
    .concat();
    flags.extend(data.iter().map(|data| flag("--data", "data", data)));
    let first = settings(&common, flags.clone())?;
    if first.nats.url.is_some() {
        let mut process = Process::start(first, Role::Up, StreamPolicy::Verify).await?;
        let _demo = if demo {
            Some(demo::start(&mut process).await?)
        } else {
            None
        };
        return process.run(Parts::ALL).await;
    }
    Process::start_log(&first)?;
    let server = {
        let (data, limit) = (first.data.clone(), first.nats.storage_limit);
        tokio::task::spawn_blocking(move || NatsServer::start(nats_server.as_deref(), &data, limit))
            .await??
    };
    let own = [
        ("nats.url", server.contact.url.clone()),
        ("nats.token", server.contact.token.clone()),
        ("nats.storage_limit", server.storage_limit.to_string()),
    ];
    flags.extend(
        own.iter()
            .map(|(key, value)| flag("the embedded nats-server", key, value)),
    );
    let result = async {
        let mut process =
            Process::start_with_log(settings(&common, flags)?, Role::Up, StreamPolicy::Update)
                .await?;
        let _demo = if demo {
            Some(demo::start(&mut process).await?)
        } else {
            None
        };
        process.run(Parts::ALL).await
    }
    .await;
    tokio::task::spawn_blocking(move || server.stop()).await?;
    result
}

/// Takes events.
///
/// # Errors
/// The settings, a port or NATS can't be used.
pub async fn ingest(arguments: IngestArguments) -> anyhow::Result<()> {
    let settings = settings(
        &arguments.common,
        [arguments.kubernetes.flags(), arguments.ingest.flags()].concat(),
    )?;
    Process::start(settings, Role::Ingest, StreamPolicy::Wait)
        .await?
        .run(Parts {
            ingest: true,
            ..Parts::default()
        })
        .await
}

/// Plans deliveries.
///
/// # Errors
/// The settings, a port, NATS or the rules can't be used.
pub async fn router(arguments: RouterArguments) -> anyhow::Result<()> {
    let flags = [
        arguments.kubernetes.flags(),
        arguments.rules.flags(),
        arguments.router.flags(),
    ]
    .concat();
    let settings = settings(&arguments.common, flags)?;
    Process::start(settings, Role::Router, StreamPolicy::Verify)
        .await?
        .run(Parts {
            router: true,
            ..Parts::default()
        })
        .await
}

/// Makes deliveries.
///
/// # Errors
/// The settings, a port, NATS or the rules can't be used.
pub async fn worker(arguments: WorkerArguments) -> anyhow::Result<()> {
    let settings = settings(
        &arguments.common,
        [
            arguments.kubernetes.flags(),
            arguments.rules.flags(),
            arguments.worker.flags(),
        ]
        .concat(),
    )?;
    Process::start(settings, Role::Worker, StreamPolicy::Verify)
        .await?
        .run(Parts {
            worker: true,
            ..Parts::default()
        })
        .await
}
