//! Replay and drop dead letters: single ones, or those that a filter selects, a part at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use serde::Deserialize;
use serde_json::json;

use super::{MAX_BODY_BYTES, Operator};
use crate::command::dead_letters::find::{Filter, Part, StoredDeadLetter, find_page};
use crate::command::dead_letters::{action_on, delete, replay as replay_one};
use crate::console::Console;
use crate::console::access::{Caller, Role};
use crate::console::api::dead_letters::keep_visible;
use crate::console::api::{Answer, body, json};
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::namespaces_of_rules;

/// The most dead letters of an action, and of a count.
const MOST_CHANGED: usize = 100;
const MOST_COUNTED: usize = 10_000;
/// The most single dead letters of an action.
const MOST_NAMED: usize = 20;
/// The most dead letters that are read.
const MOST_READ: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;
const KNOWN: [&str; 5] = ["after", "alert", "provider", "cluster", "reason"];

/// Which dead letters are wanted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    /// Single ones, by their sequence.
    #[serde(default)]
    sequences: Vec<u64>,
    /// Otherwise those that a filter selects.
    filter: Option<Named>,
    /// The sequence that they follow.
    #[serde(default)]
    after: u64,
    /// The last sequence: later ones were not in the preview.
    up_to: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    alert: Option<String>,
    provider: Option<String>,
    cluster: Option<String>,
    reason: Option<String>,
}

/// What is done with each.
#[derive(Clone, Copy)]
enum Change {
    Replay,
    Drop,
}

/// `/api/dead/count`: how many a filter selects of a part of the stream. A limited caller gets the
/// number of those that it may act on.
pub async fn count(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref(), &KNOWN)?;
    let filter = Filter {
        alert: query.text("alert"),
        provider: query.text("provider"),
        cluster: query.text("cluster"),
        reason: query.text("reason"),
        ..Filter::default()
    };
    check(&filter)?;
    let part = Part {
        most_found: MOST_COUNTED,
        ..part(query.number("after", 0..=u64::MAX, 0)?)
    };
    let mut page = find_page(&console.parts.bus, &filter, part).await?;
    keep_operable(&console, &caller, &mut page.found).await?;
    json(&json!({
        "count": page.found.len(),
        "upTo": page.found.last().map(|last| last.sequence),
        "next": page.next,
    }))
}

pub async fn replay(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    change(console, caller, request, Change::Replay).await
}

pub async fn drop(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    change(console, caller, request, Change::Drop).await
}

async fn change(console: Arc<Console>, caller: Caller, request: Request, change: Change) -> Answer {
    let operator = Operator::of(console.clone(), caller, &request);
    let wanted: Wanted = body::read(request, MAX_BODY_BYTES).await?;
    let (found, next, target) = find(&console, &operator.caller, wanted).await?;
    let name = match change {
        Change::Replay => "dead-replay",
        Change::Drop => "dead-drop",
    };
    let count = found.len();
    if count == 0 {
        return json(&json!({ "done": 0, "next": next }));
    }
    let named = found.iter().map(StoredDeadLetter::delivery);
    let named = named
        .flat_map(|delivery| namespaces_of_rules(&delivery))
        .collect();
    let permit = console.permit(&operator.caller, named).await?;
    let action = action_on(name, target, &found);
    let act = async move {
        let bus = &console.parts.bus;
        for stored in found {
            if matches!(change, Change::Replay) {
                replay_one(bus, stored.delivery()).await?;
            }
            delete(bus, stored.sequence).await?;
        }
        Ok(json!({ "done": count, "next": next }))
    };
    operator.act(permit, action, act).await
}

/// The wanted dead letters, the sequence to go on after, and what they are.
async fn find(
    console: &Console,
    caller: &Caller,
    wanted: Wanted,
) -> Result<(Vec<StoredDeadLetter>, Option<u64>, String), Problem> {
    let bus = &console.parts.bus;
    let Some(named) = wanted.filter else {
        if wanted.sequences.is_empty() || wanted.sequences.len() > MOST_NAMED {
            let problem = format!("expected a filter, or 1 to {MOST_NAMED} sequences");
            return Err(Problem::Invalid(problem));
        }
        let mut found = Vec::new();
        let sequences: BTreeSet<_> = wanted.sequences.into_iter().collect();
        for sequence in sequences {
            let part = Part {
                most_found: 1,
                most_read: 1,
                ..part(sequence.saturating_sub(1))
            };
            let page = find_page(bus, &Filter::default(), part).await?;
            found.extend(page.found.into_iter().filter(|it| it.sequence == sequence));
        }
        keep_visible(console, caller, &mut found).await?;
        let ids: Vec<_> = found.iter().map(|stored| stored.delivery().id).collect();
        return match found.is_empty() {
            true => Err(Problem::NotFound),
            false => Ok((found, None, ids.join(" "))),
        };
    };
    let filter = Filter {
        alert: named.alert,
        provider: named.provider,
        cluster: named.cluster,
        reason: named.reason,
        ..Filter::default()
    };
    check(&filter)?;
    let last = wanted.up_to.unwrap_or(u64::MAX);
    let mut page = find_page(bus, &filter, part(wanted.after)).await?;
    page.found.retain(|stored| stored.sequence <= last);
    keep_operable(console, caller, &mut page.found).await?;
    let next = page.next.filter(|next| *next < last);
    Ok((page.found, next, filter.text()))
}

/// Keeps the dead letters that the caller sees and may act on.
async fn keep_operable(
    console: &Console,
    caller: &Caller,
    found: &mut Vec<StoredDeadLetter>,
) -> Result<(), Problem> {
    keep_visible(console, caller, found).await?;
    if caller.role == Role::Operate || caller.user.is_none() {
        return Ok(());
    }
    let named = found.iter().map(StoredDeadLetter::delivery);
    let named = named
        .flat_map(|delivery| namespaces_of_rules(&delivery))
        .collect();
    let operable = console.operable(caller, named).await?;
    found.retain(|stored| {
        let mut names = namespaces_of_rules(&stored.delivery()).into_iter();
        names.all(|name| operable.contains(&name))
    });
    Ok(())
}

fn check(filter: &Filter) -> Result<(), Problem> {
    let checked = filter.check();
    checked.map_err(|error| Problem::Invalid(error.to_string()))
}

fn part(after: u64) -> Part {
    Part {
        after,
        most_found: MOST_CHANGED,
        most_read: MOST_READ,
        most_bytes: MOST_BYTES,
    }
}
