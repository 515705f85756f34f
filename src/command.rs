//! The command line, with one file for each tool. Roles are in `role`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tidings_workers::expression::{self, Executable};

use crate::allocator;
use crate::nats_server::{CHILD_COMMAND, become_nats_server};
use crate::role::{bridge, ingest, router, up, worker};

pub mod audit;
pub mod check;
pub mod completions;
pub mod crds;
pub mod dead_letters;
pub mod deliveries;
mod examples;
pub mod fleet;
pub mod list;
pub mod names;
pub mod providers;
pub mod replay;
pub mod rules;
pub mod shadow;
pub mod status;
pub mod streams;
pub mod tap;
pub mod test;
pub mod tool;
pub mod top;
pub mod trace;

const EXAMPLES: &str = "\
Examples:
  tidings up --rules DIR                                    Run everything in one process
  tidings status                                            Show what needs attention
  tidings trace --object Kustomization/apps/shop            Show why an event was sent, or not

Exit status: 0 for success, 1 if test, check or status found a problem, or trace no event, 2 for an
error.";

/// Deliver GitOps events reliably to chats, incident tools, webhooks and Git forges
#[derive(Parser, Debug)]
#[command(
    name = "tidings",
    version,
    long_version = env!("SOURCE_VERSION"),
    max_term_width = 100,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run all roles in one process, with an embedded nats-server unless --nats is given
    Up(up::UpArguments),
    /// Accept events and store them on the NATS server
    Ingest(ingest::IngestArguments),
    /// Match events against Alerts and store deliveries
    Router(router::RouterArguments),
    /// Make deliveries and retry failed deliveries
    Worker(worker::WorkerArguments),
    /// Forward events as CloudEvents to a stream or a URL
    Bridge(bridge::BridgeArguments),
    /// Test rules with one event: print each Alert's verdict and the requests; send with --send
    Test(test::TestArguments),
    /// Check rules: report errors, and rules that can never match
    Check(check::CheckArguments),
    /// Print events as they are stored
    Tap(tap::TapArguments),
    /// Show what became of an event: its arrival, each Alert's verdict, each delivery's attempts
    Trace(trace::TraceArguments),
    /// Show what runs, what waits and what fails; exit with 1 if something needs attention
    Status(status::StatusArguments),
    /// Show the status again and again until q or Ctrl-C
    Top(top::TopArguments),
    /// List parked and ready deliveries
    Deliveries(deliveries::DeliveriesArguments),
    /// List, show, replay and drop dead letters
    Dead(dead_letters::DeadArguments),
    /// Route stored events again, or store deliveries again that are gone from the NATS server
    Replay(replay::ReplayArguments),
    /// List what people did by hand: who, when, from where
    Audit(audit::AuditArguments),
    /// List provider types and circuits; pause and resume deliveries to a Provider
    Providers(providers::ProvidersArguments),
    /// Report what shadow mode recorded: what would have been delivered
    Shadow(shadow::ShadowArguments),
    /// Forget the restriction that a rule keeps after it lost its fields
    Rules(rules::forget::RulesArguments),
    /// Issue and revoke the credentials of clusters that share one hub
    Fleet(fleet::FleetArguments),
    /// Create and update the streams on the NATS server; recreate a lost consumer
    Streams(streams::StreamsArguments),
    /// Print the completions of a shell
    Completions(completions::CompletionsArguments),
    /// Print the man page, or write a page for each subcommand
    Man(completions::ManArguments),
    /// Print the CustomResourceDefinitions of Alert, Provider and ProviderGrant
    Crds(crds::CrdsArguments),
    #[command(name = CHILD_COMMAND, hide = true)]
    BecomeNatsServer {
        parent: u32,
        executable: PathBuf,
        configuration: PathBuf,
    },
    #[command(name = EVALUATE_COMMAND, hide = true)]
    EvaluateExpressions,
}

/// The hidden subcommand that turns a child process into one that evaluates expressions.
const EVALUATE_COMMAND: &str = "evaluate-expressions";

/// The output format of a tool. The values have no doc comments, to keep the help short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// The output format of a list. The values have no doc comments, to keep the help short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    Text,
    Json,
    Jsonl,
}

/// The definition of the command line.
pub fn cli() -> clap::Command {
    examples::add(Cli::command())
}

/// Parses the command line of the process.
///
/// # Errors
/// It is invalid, or asks for help.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&cli().try_get_matches()?)
}

/// Runs a subcommand and returns its exit status.
///
/// # Errors
/// The subcommand failed. The exit status is then 2.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::BecomeNatsServer {
            parent,
            executable,
            configuration,
        } => return become_nats_server(*parent, executable, configuration).map(|()| 0),
        Command::EvaluateExpressions => {
            let run = expression::child::run();
            return run.map(|()| 0).context("only tidings itself runs this");
        }
        Command::Up(_)
        | Command::Ingest(_)
        | Command::Router(_)
        | Command::Worker(_)
        | Command::Bridge(_) => {
            allocator::apply_settings();
        }
        _ => {}
    }
    start_once();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => up::run(arguments).await?,
            Command::Ingest(arguments) => ingest::run(arguments).await?,
            Command::Router(arguments) => router::run(arguments).await?,
            Command::Worker(arguments) => worker::run(arguments).await?,
            Command::Bridge(arguments) => bridge::run(arguments).await?,
            Command::Test(arguments) => return test::run(arguments).await,
            Command::Check(arguments) => return check::run(arguments).await,
            Command::Tap(arguments) => tap::run(arguments).await?,
            Command::Trace(arguments) => return trace::run(arguments).await,
            Command::Status(arguments) => return status::run(arguments).await,
            Command::Top(arguments) => top::run(arguments).await?,
            Command::Deliveries(arguments) => deliveries::run(arguments).await?,
            Command::Dead(arguments) => dead_letters::run(arguments).await?,
            Command::Replay(arguments) => replay::run(arguments).await?,
            Command::Audit(arguments) => audit::run(arguments).await?,
            Command::Providers(arguments) => providers::run(arguments).await?,
            Command::Shadow(arguments) => shadow::run(arguments).await?,
            Command::Rules(arguments) => rules::forget::run(arguments).await?,
            Command::Fleet(arguments) => fleet::run(arguments).await?,
            Command::Streams(arguments) => streams::run(arguments).await?,
            Command::Completions(arguments) => completions::completions(&arguments)?,
            Command::Man(arguments) => completions::man(&arguments)?,
            Command::Crds(arguments) => crds::run(&arguments)?,
            Command::BecomeNatsServer { .. } | Command::EvaluateExpressions => {
                unreachable!("handled above")
            }
        }
        Ok(0)
    })
}

/// Sets what all subcommands share, except those of child processes.
fn start_once() {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("tidings: another TLS provider is already installed");
    }
    expression::start_children_with(Executable {
        // Of this process, even if the file was replaced since.
        program: "/proc/self/exe".into(),
        arguments: vec![EVALUATE_COMMAND.into()],
    });
}
