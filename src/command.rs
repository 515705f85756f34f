//! The command line: roles that run, and tools for people.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::nats_server::{CHILD_COMMAND, become_nats_server};
use crate::role;

pub mod circuits;
pub mod crds;
pub mod dead_letters;
pub mod providers;
pub mod streams;
pub mod tap;
pub mod test;
pub mod tool;

/// Durable dispatch of GitOps notifications: events in, chats, incidents and commit statuses out.
#[derive(Parser, Debug)]
#[command(name = "tidings", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// All roles in one process, with a nats-server of its own unless --nats is given
    Up(role::UpArguments),
    /// Takes events and stores them on the bus
    Ingest(role::IngestArguments),
    /// Applies Alert rules to events and plans deliveries
    Router(role::RouterArguments),
    /// Makes deliveries, with durable retries
    Worker(role::WorkerArguments),
    /// Takes one event through all rules, and says of every alert what it makes of it
    Test(test::TestArguments),
    /// Follows the stream of events
    Tap(tap::TapArguments),
    /// Lists, shows, replays and drops dead letters
    Dead(dead_letters::DeadArguments),
    /// Lists the provider types and what each needs; shows which Providers are not called, pauses
    /// and resumes them
    Providers(providers::ProvidersArguments),
    /// Makes or changes the streams on the bus
    Streams(streams::StreamsArguments),
    /// Prints the CustomResourceDefinitions of Alert and Provider
    Crds(crds::CrdsArguments),
    #[command(name = CHILD_COMMAND, hide = true)]
    BecomeNatsServer {
        parent: u32,
        executable: PathBuf,
        configuration: PathBuf,
    },
}

/// The form of what a tool prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Runs a command; the number is its exit status.
///
/// # Errors
/// What can't be done, for exit status 2.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Command::BecomeNatsServer {
        parent,
        executable,
        configuration,
    } = &cli.command
    {
        return become_nats_server(*parent, executable, configuration).map(|()| 0);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => role::up(arguments).await.map(|()| 0),
            Command::Ingest(arguments) => role::ingest(arguments).await.map(|()| 0),
            Command::Router(arguments) => role::router(arguments).await.map(|()| 0),
            Command::Worker(arguments) => role::worker(arguments).await.map(|()| 0),
            Command::Test(arguments) => test::run(arguments).await,
            Command::Tap(arguments) => tap::run(arguments).await.map(|()| 0),
            Command::Dead(arguments) => dead_letters::run(arguments).await.map(|()| 0),
            Command::Providers(arguments) => providers::run(arguments).await.map(|()| 0),
            Command::Streams(arguments) => streams::run(arguments).await.map(|()| 0),
            Command::Crds(arguments) => crds::run(&arguments).map(|()| 0),
            Command::BecomeNatsServer { .. } => unreachable!("handled above"),
        }
    })
}
