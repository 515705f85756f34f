//! `tidings providers`.

use clap::{Args, Subcommand};

use super::circuits::{self, CircuitsCommand};

/// What `tidings providers` takes.
#[derive(Args, Debug)]
pub struct ProvidersArguments {
    #[command(subcommand)]
    command: ProvidersCommand,
}

#[derive(Subcommand, Debug)]
enum ProvidersCommand {
    #[command(flatten)]
    Circuits(CircuitsCommand),
}

/// Runs the command.
///
/// # Errors
/// The bus can't be reached, or the Provider's name can't be read.
pub async fn run(arguments: ProvidersArguments) -> anyhow::Result<()> {
    let ProvidersCommand::Circuits(command) = arguments.command;
    circuits::run(command).await
}
