//! `tidings audit`: lists what people did by hand.

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use tidings_core::bus::audit::StoredAction;
use tidings_core::model::time::to_proto;

use super::ListOutput;
use super::list::{self, Row};
use super::tool::{BusArguments, bus, moment, time};
use crate::audit::json;

/// The headers of the list on a terminal.
const HEADERS: &[&str] = &[
    "TIME", "WHO", "FROM", "VIA", "ACTION", "TARGET", "COUNT", "DETAIL",
];

/// Arguments of `tidings audit`.
#[derive(Args, Debug)]
pub struct AuditArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// List what was done since this time, such as 2026-01-02T15:04:05Z, or 7d for 7 days ago
    /// [default: all that is stored]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Most actions to list: the latest, 1 to 100000
    #[arg(long, value_name = "NUMBER", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Output format; json prints one array, jsonl one object per line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

/// Prints the actions, oldest first.
///
/// # Errors
/// The bus cannot be reached, or --since is invalid.
pub async fn run(arguments: AuditArguments) -> anyhow::Result<()> {
    let since = arguments.since.as_deref().map(moment).transpose();
    let since = since.context("--since")?.unwrap_or(Timestamp::UNIX_EPOCH);
    let bus = bus(&arguments.bus).await?;
    let limit = usize::try_from(arguments.limit)?;
    let actions = bus.recorded_actions(since, limit).await;
    let (actions, has_more) = actions.context("cannot read the stream AUDIT")?;
    if has_more {
        eprintln!("only the last {limit} are listed: pass a higher --limit, or --since");
    } else if actions.is_empty() && arguments.output == ListOutput::Text {
        eprintln!("no actions");
    }
    let rows: Vec<_> = actions.iter().map(row).collect();
    list::print(arguments.output, HEADERS, &rows)?;
    Ok(())
}

fn row(stored: &StoredAction) -> Row {
    let record = &stored.record;
    let at = time(Some(to_proto(stored.stored_at)));
    let count = match record.count {
        0 => String::new(),
        count => count.to_string(),
    };
    let number = match record.count {
        0 => String::new(),
        count => format!(" ({count})"),
    };
    let detail = match record.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    Row {
        line: format!(
            "{at} {} from {} ({}): {} {}{number}{detail}",
            record.who, record.from, record.via, record.action, record.target
        ),
        cells: vec![
            at,
            record.who.clone(),
            record.from.clone(),
            record.via.clone(),
            record.action.clone(),
            record.target.clone(),
            count,
            record.detail.clone(),
        ],
        json: json(stored),
    }
}
