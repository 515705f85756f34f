//! `tidings deliveries`: lists what is stored in DELIVERIES, without consuming it.

pub mod report;

use clap::{Args, Subcommand, ValueEnum};
use tidings_core::bus::Bus;
use tidings_core::bus::names::{RuleKind, RuleName};
use tidings_core::bus::stored_deliveries::StoredDelivery;
use tidings_core::model::subject::{ALL_DELIVERIES, ALL_PARKED, provider_filters};
use tidings_core::model::text::visible;

use super::tool::{BusArguments, bus};
use super::{ListOutput, list, names};

/// Arguments of `tidings deliveries`.
#[derive(Args, Debug)]
pub struct DeliveriesArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List deliveries in the order in which they were stored, with the last attempt and the time
    /// of the next one
    List(ListArguments),
}

#[derive(Args, Debug)]
struct ListArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// List parked deliveries, which wait until their next attempt, or ready ones, which wait for a
    /// worker or are with one
    #[arg(long, value_enum, default_value_t = State::Parked)]
    state: State,
    /// List deliveries to this Provider
    #[arg(long, value_name = "NAMESPACE/NAME")]
    provider: Option<String>,
    /// Most deliveries to list, 1 to 10000
    #[arg(long, value_name = "NUMBER", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Output format; json prints one array, jsonl one object per line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

/// Where a delivery is. The values have no doc comments, to keep the help short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    Parked,
    Ready,
}

impl State {
    /// The state in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Ready => "ready",
        }
    }
}

/// Runs `tidings deliveries`.
///
/// # Errors
/// The bus cannot be reached, or the Provider's name is invalid.
pub async fn run(arguments: DeliveriesArguments) -> anyhow::Result<()> {
    let Action::List(arguments) = arguments.action;
    list_all(&arguments).await
}

async fn list_all(arguments: &ListArguments) -> anyhow::Result<()> {
    let state = arguments.state;
    let provider = arguments.provider.as_deref();
    let provider = provider.map(|text| names::parse(RuleKind::Provider, "--provider", text));
    let provider = provider.transpose()?;
    let bus = bus(&arguments.bus).await?;
    let filter = filter(state, provider.as_ref());
    let limit = usize::try_from(arguments.limit)?;
    let (found, has_more) = bus.stored_deliveries(&filter, limit).await?;
    explain(&bus, arguments, provider.as_ref(), &found, has_more).await;
    let rows: Vec<_> = found
        .iter()
        .map(|stored| report::row(stored, state))
        .collect();
    list::print(arguments.output, report::HEADERS, &rows)?;
    Ok(())
}

/// The subjects of deliveries in a state, to one Provider or all.
pub fn filter(state: State, provider: Option<&RuleName>) -> String {
    let Some(provider) = provider else {
        return match state {
            State::Parked => ALL_PARKED.to_owned(),
            State::Ready => ALL_DELIVERIES.to_owned(),
        };
    };
    let [ready, parked, ..] = provider_filters(&provider.namespace, &provider.name);
    match state {
        State::Parked => parked,
        State::Ready => ready,
    }
}

/// Says on standard error what the list does not: that it is empty, or that there is more.
async fn explain(
    bus: &Bus,
    arguments: &ListArguments,
    provider: Option<&RuleName>,
    found: &[StoredDelivery],
    has_more: bool,
) {
    if has_more {
        eprintln!(
            "only the first {} are listed: pass a higher --limit, or --provider",
            found.len()
        );
    }
    if !found.is_empty() {
        return;
    }
    let known = match provider {
        Some(provider) => names::require(bus, provider, std::iter::empty()).await,
        None => Ok(()),
    };
    match known {
        Err(error) => eprintln!("{}", visible(&error.to_string())),
        Ok(()) if arguments.output == ListOutput::Text => {
            eprintln!("no {} deliveries", arguments.state.as_str());
        }
        Ok(()) => {}
    }
}
