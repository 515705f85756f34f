//! `/api/dead`: pages of dead letters. `/api/dead/SEQUENCE`: one with its event and attempts.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::text::cut_bytes;

use super::{Answer, json};
use crate::command::dead_letters::find::{Filter, Part, StoredDeadLetter, find_newest, find_page};
use crate::command::dead_letters::report;
use crate::command::dead_letters::stored_event::StoredEvent;
use crate::command::tool::time;
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::namespaces_of_rules;

/// The parameters of a page.
const KNOWN: [&str; 7] = [
    "order", "after", "limit", "alert", "provider", "cluster", "reason",
];
/// The most dead letters of a page.
const MOST: u64 = 1000;
/// The most dead letters that are read for a page.
const MOST_READ: usize = 10_000;
/// The most bytes of the stored dead letters of a page. The rest is on the next page.
const MOST_BYTES: usize = 4 << 20;
/// The longest detail in a list.
const MAX_DETAIL_BYTES: usize = 500;

pub async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref(), &KNOWN)?;
    let is_newest_first = match query.text("order").as_deref() {
        None | Some("oldest") => false,
        Some("newest") => true,
        Some(_) => {
            let problem = "order: expected oldest or newest";
            return Err(Problem::Invalid(problem.to_owned()));
        }
    };
    let start = if is_newest_first { u64::MAX } else { 0 };
    let part = Part {
        after: query.number("after", 0..=u64::MAX, start)?,
        most_found: usize::try_from(query.number("limit", 1..=MOST, 100)?).unwrap_or(100),
        most_read: MOST_READ,
        most_bytes: MOST_BYTES,
    };
    let filter = Filter {
        alert: query.text("alert"),
        provider: query.text("provider"),
        cluster: query.text("cluster"),
        reason: query.text("reason"),
        ..Filter::default()
    };
    let checked = filter.check();
    checked.map_err(|error| Problem::Invalid(error.to_string()))?;
    let bus = &console.parts.bus;
    let mut page = match is_newest_first {
        true => find_newest(bus, &filter, part).await?,
        false => find_page(bus, &filter, part).await?,
    };
    keep_visible(&console, &caller, &mut page.found).await?;
    json(&json!({
        "deadLetters": page.found.iter().map(row).collect::<Vec<_>>(),
        "next": page.next,
        "stored": (!caller.is_limited).then_some(page.stored),
    }))
}

/// Keeps the dead letters that the caller sees.
pub(super) async fn keep_visible(
    console: &Console,
    caller: &Caller,
    found: &mut Vec<StoredDeadLetter>,
) -> Result<(), Problem> {
    let named = found
        .iter()
        .filter_map(|stored| stored.dead_letter.delivery.as_ref());
    let visible = console
        .visible(
            caller,
            named.flat_map(|delivery| console.namespaces_to_ask(delivery)),
        )
        .await?;
    found.retain(|stored| {
        let delivery = stored.dead_letter.delivery.as_ref();
        visible.is_all() || delivery.is_some_and(|delivery| visible.delivery(delivery))
    });
    Ok(())
}

pub async fn show(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(sequence): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::read(query.as_deref(), &[])?;
    let sequence: u64 = sequence.parse().map_err(|_| Problem::NotFound)?;
    let before = sequence.checked_sub(1).ok_or(Problem::NotFound)?;
    let part = Part {
        after: before,
        most_found: 1,
        most_read: 1,
        most_bytes: usize::MAX,
    };
    let bus = &console.parts.bus;
    let page = find_page(bus, &Filter::default(), part).await?;
    let stored = page.found.first();
    let stored = stored.filter(|stored| stored.sequence == sequence);
    let stored = stored.ok_or(Problem::NotFound)?;
    let event = StoredEvent::find(bus, stored.delivery()).await;
    // The delivery of a large event carries an excerpt, or, planned by an older version, none.
    let delivery = stored.delivery();
    let object = event
        .known()
        .and_then(|event| console.namespace_to_ask(event));
    let named = namespaces_of_rules(&delivery).into_iter().chain(object);
    let visible = console.visible(&caller, named).await?;
    let sees_event = event.known().is_some_and(|event| visible.event(event));
    let is_visible = sees_event && visible.rules_of(&delivery);
    if !(visible.is_all() || is_visible) {
        return Err(Problem::NotFound);
    }
    json(&report::json(stored, &event))
}

fn row(stored: &StoredDeadLetter) -> Value {
    let dead_letter = &stored.dead_letter;
    let delivery = stored.delivery();
    let event = carried_event(&delivery);
    let object = event.and_then(|event| event.involved_object.as_ref());
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    json!({
        "sequence": stored.sequence,
        "id": delivery.id,
        "reason": dead_letter.reason,
        "detail": cut_bytes(&dead_letter.detail, MAX_DETAIL_BYTES),
        "diedAt": time(dead_letter.died_at),
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "eventId": delivery.event_id,
        "cluster": event.map(|event| &event.cluster),
        "object": object.map(|object| {
            format!("{} {}/{}", object.kind, object.namespace, object.name)
        }),
        "attempts": delivery.attempt,
        "generation": delivery.generation,
    })
}
