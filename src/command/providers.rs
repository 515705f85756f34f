//! `tidings providers`: lists provider types and circuits, and pauses and resumes deliveries.

pub mod circuits;
mod markdown;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use tidings_rules::Family;
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::contract::need::Need;
use tidings_workers::notifier::{PROVIDERS, provider_type};

use super::ListOutput;
use super::tool::write_all;
use circuits::CircuitsCommand;

/// Arguments of `tidings providers`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProvidersArguments {
    #[command(subcommand)]
    command: Option<ProvidersCommand>,
    /// Output format of the list of provider types; json prints one array, jsonl one object per
    /// line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

#[derive(Subcommand, Debug)]
enum ProvidersCommand {
    /// Print an example of a Provider of this type, with its Secret
    Example {
        /// Provider type, such as slack
        r#type: String,
    },
    #[command(flatten)]
    Circuits(CircuitsCommand),
    /// Print the generated part of docs/providers.md
    #[command(hide = true)]
    Markdown,
}

/// A provider type for `--output json`.
#[derive(Serialize)]
struct TypeReport {
    r#type: &'static str,
    family: &'static str,
    summary: &'static str,
    needs: Vec<NeedReport>,
    limits: &'static str,
    again: &'static str,
    example: String,
}

#[derive(Serialize)]
struct NeedReport {
    r#in: &'static str,
    name: &'static str,
    demand: &'static str,
    meaning: &'static str,
}

/// Runs `tidings providers`.
///
/// # Errors
/// The provider type does not exist, or the bus cannot be reached.
pub async fn run(arguments: ProvidersArguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(ProvidersCommand::Example { r#type }) => write_all(example(&r#type)?.as_bytes())?,
        Some(ProvidersCommand::Circuits(command)) => circuits::run(command).await?,
        Some(ProvidersCommand::Markdown) => write_all(markdown::page().as_bytes())?,
        None => match arguments.output {
            ListOutput::Jsonl => {
                let lines = PROVIDERS.iter().map(|row| {
                    let line = serde_json::to_string(&report(row))?;
                    anyhow::Ok(line + "\n")
                });
                write_all(lines.collect::<Result<String, _>>()?.as_bytes())?;
            }
            ListOutput::Json => {
                let types: Vec<_> = PROVIDERS.iter().map(|row| report(row)).collect();
                write_all((serde_json::to_string(&types)? + "\n").as_bytes())?;
            }
            ListOutput::Text => {
                write_all(
                    PROVIDERS
                        .iter()
                        .map(|row| text(row))
                        .collect::<String>()
                        .as_bytes(),
                )?;
            }
        },
    }
    Ok(())
}

fn example(kind: &str) -> anyhow::Result<String> {
    let row = provider_type(kind).with_context(|| {
        let kinds: Vec<_> = PROVIDERS.iter().map(|row| row.kind).collect();
        format!(
            "provider type {kind} not found: use one of {}",
            kinds.join(", ")
        )
    })?;
    Ok(row.example())
}

fn report(row: &ProviderType) -> TypeReport {
    let need = |need: &Need| NeedReport {
        r#in: need.place.as_str(),
        name: need.name,
        demand: need.demand.as_str(),
        meaning: need.meaning,
    };
    TypeReport {
        r#type: row.kind,
        family: family(row.family),
        summary: row.summary,
        needs: row.needs.iter().map(need).collect(),
        limits: row.cut_at,
        again: row.sent_twice,
        example: row.example(),
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Generic => "webhook",
        Family::Message => "message",
        Family::Incident => "incident",
        Family::CommitStatus => "commit status",
        Family::ChangeRequest => "change request",
    }
}

fn text(row: &ProviderType) -> String {
    let need = |need: &Need| {
        let (place, demand) = (need.place.as_str(), need.demand.as_str());
        format!(
            "  {place:<6}  {:<25}  {demand:<8}  {}\n",
            need.name, need.meaning
        )
    };
    let needs: String = row.needs.iter().map(need).collect();
    format!("{}: {}\n{needs}\n", row.kind, row.summary)
}
