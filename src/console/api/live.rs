//! `/api/events`: events and outcomes as they happen, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::IntoResponse;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tidings_core::Event;
use tidings_core::model::excerpt::excerpt;
use tidings_core::model::stored_event;
use tidings_core::model::text::cut_bytes;
use tokio::sync::{broadcast, mpsc};

use super::Answer;
use crate::command::tap::Selection;
use crate::command::tap::source::{Messages, Source};
use crate::command::tool::time;
use crate::console::access::{Access, Caller};
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::recent::{Live, LiveOutcome};
use crate::console::{Console, MAX_STREAM_TIME};

/// The most stored events that are looked through at the start, or after an interruption.
const MOST_PAST: u64 = 10_000;
/// Messages that wait for a slow reader; then reading from the bus waits, too.
const BUFFER: usize = 64;
/// The longest text of a message that is shown.
const MAX_MESSAGE_BYTES: usize = 2000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is checked whether the caller may still read.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// After this number of messages that are not shown, the reader gets its position.
const MOST_SKIPPED: u64 = 1000;
/// The header in which a reader says where it was.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a live stream shows.
struct Wanted {
    selection: Selection,
    /// A part of the message, in lower case.
    text: Option<String>,
    past: u64,
    outcomes: bool,
}

/// Where a reader is in EVENTS and OUTCOMES: the id of each message. A stream that is opened again
/// begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    event: u64,
    outcome: u64,
}

/// What a live stream reads.
struct Reading {
    messages: Messages,
    outcomes: Option<Live>,
    position: Position,
    /// How many stored events are not looked through.
    missed: u64,
}

/// A live stream that follows the filters. It ends after an hour, soon after the token is removed,
/// and when the process stops; the page then opens it again.
pub async fn stream(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let wanted = Wanted::read(query.as_deref())?;
    let resumed = Position::read(&headers)?;
    let permit = console.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::Busy)?;
    let share = console.stream_shares.of(&caller)?;
    let reading = read(&console, &wanted, resumed).await?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let streams = &console.parts.metrics.console_streams;
        streams.inc();
        tokio::select! {
            () = send(&console, &caller, &wanted, reading, &sender) => {}
            () = sender.closed() => {}
            () = console.parts.stop.cancelled() => {}
            () = until_refused(&console.access, &headers, &caller) => {}
            () = tokio::time::sleep(MAX_STREAM_TIME) => {}
        }
        streams.dec();
        drop((permit, share));
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let sse = Sse::new(received(receiver)).keep_alive(keep_alive);
    Ok(sse.into_response())
}

/// Opens what the stream reads.
async fn read(
    console: &Console,
    wanted: &Wanted,
    resumed: Option<Position>,
) -> anyhow::Result<Reading> {
    let source = Source::open(&console.parts.bus).await?;
    let filter = source.filter(wanted.selection.filter())?;
    let last = source.last_sequence().await?.unwrap_or_default();
    // A recreated stream begins again below what the reader had.
    let resumed = resumed.filter(|at| at.event <= last);
    let oldest = last.saturating_sub(resumed.map_or(wanted.past, |_| MOST_PAST));
    let event = resumed.map_or(oldest, |at| at.event.max(oldest));
    // Before the events, so that no outcome of an event that is shown is missed.
    let live = || console.recent.live(resumed.map(|at| at.outcome));
    let outcomes = wanted.outcomes.then(live);
    let start = DeliverPolicy::ByStartSequence {
        start_sequence: event + 1,
    };
    let (_, messages) = source.messages(&filter, start).await?;
    let outcome = outcomes.as_ref().map_or(0, |live| live.after);
    Ok(Reading {
        messages,
        outcomes,
        position: Position { event, outcome },
        missed: resumed.map_or(0, |at| event - at.event),
    })
}

/// Waits until the caller may no longer read what it reads.
async fn until_refused(access: &Access, headers: &HeaderMap, caller: &Caller) {
    while access.check(headers).await.is_ok_and(|now| now == *caller) {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

fn received(receiver: mpsc::Receiver<Message>) -> impl Stream<Item = Result<Message, Infallible>> {
    stream::unfold(receiver, async |mut receiver| {
        let message = receiver.recv().await?;
        Some((Ok(message), receiver))
    })
}

/// Sends until the stream of events ends, nobody reads, or it is not known what the caller may see.
async fn send(
    console: &Console,
    caller: &Caller,
    wanted: &Wanted,
    mut reading: Reading,
    sender: &mpsc::Sender<Message>,
) {
    let at = &mut reading.position;
    let first = match (
        reading.missed,
        reading.outcomes.as_ref().map(|live| live.missed),
    ) {
        (0, None | Some(0)) => ("position", Value::Null),
        (events, outcomes) => ("missed", json!({ "events": events, "outcomes": outcomes })),
    };
    let past = reading.outcomes.iter_mut();
    let past: Vec<_> = past
        .flat_map(|live| std::mem::take(&mut live.past))
        .collect();
    if sender.send(at.data(first.0, &first.1)).await.is_err() {
        return;
    }
    for outcome in past {
        at.outcome = outcome.sequence;
        let Ok(is_shown) = shows_outcome(console, caller, wanted, &outcome).await else {
            return;
        };
        if is_shown && sender.send(at.data("outcome", &outcome.row)).await.is_err() {
            return;
        }
    }
    let mut skipped = 0;
    loop {
        let message = tokio::select! {
            message = reading.messages.next() => {
                // The page opens the stream again, which tries from where it was.
                let Some(Ok(message)) = message else { return };
                if let Ok(info) = message.info() {
                    at.event = info.stream_sequence;
                }
                let event = wanted.event(&message.subject, &message.payload);
                let Ok(event) = visible_event(console, caller, event).await else { return };
                event.map(|event| at.data("event", &row(&event)))
            }
            outcome = next_outcome(reading.outcomes.as_mut()) => match outcome {
                Ok(outcome) => {
                    at.outcome = outcome.sequence;
                    let shown = shows_outcome(console, caller, wanted, &outcome).await;
                    let Ok(is_shown) = shown else { return };
                    is_shown.then(|| at.data("outcome", &outcome.row))
                }
                Err(missed) => Some(at.data("missed", &json!({ "outcomes": missed }))),
            },
        };
        skipped = if message.is_some() { 0 } else { skipped + 1 };
        let position = || at.data("position", &Value::Null);
        let message =
            message.or_else(|| (skipped % MOST_SKIPPED == MOST_SKIPPED - 1).then(position));
        if let Some(message) = message
            && sender.send(message).await.is_err()
        {
            return;
        }
    }
}

/// The event, if the caller sees it.
async fn visible_event(
    console: &Console,
    caller: &Caller,
    event: Option<Event>,
) -> Result<Option<Event>, Problem> {
    let Some(event) = event else {
        return Ok(None);
    };
    let visible = console
        .visible(caller, console.namespace_to_ask(&event))
        .await?;
    Ok(visible.event(&event).then_some(event))
}

/// Whether an outcome is wanted, and the caller sees it.
async fn shows_outcome(
    console: &Console,
    caller: &Caller,
    wanted: &Wanted,
    outcome: &LiveOutcome,
) -> Result<bool, Problem> {
    if !wanted.shows_outcome(&outcome.row) {
        return Ok(false);
    }
    let visible = console
        .visible(caller, outcome.namespaces.iter().cloned())
        .await?;
    let mut names = outcome.namespaces.iter();
    let cluster = outcome.row["cluster"].as_str().unwrap_or_default();
    Ok(visible.cluster(cluster) && names.all(|name| visible.namespace(name)))
}

/// Waits forever without outcomes.
///
/// # Errors
/// The number of outcomes that were missed, because the reader is slow.
async fn next_outcome(outcomes: Option<&mut Live>) -> Result<Arc<LiveOutcome>, u64> {
    let Some(live) = outcomes else {
        return std::future::pending().await;
    };
    match live.next.recv().await {
        Ok(outcome) => Ok(outcome),
        Err(broadcast::error::RecvError::Lagged(missed)) => Err(missed),
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

impl Position {
    /// The position that the reader had, if it opens the stream again.
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(LAST_EVENT_ID) else {
            return Ok(None);
        };
        let parts = value.to_str().ok().and_then(|id| id.split_once('-'));
        let position = parts.and_then(|(event, outcome)| {
            let (event, outcome) = (event.parse().ok()?, outcome.parse().ok()?);
            Some(Self { event, outcome })
        });
        let problem = "Last-Event-ID: expected an id of this stream";
        position
            .map(Some)
            .ok_or_else(|| Problem::Invalid(problem.to_owned()))
    }

    fn data(self, name: &str, value: &Value) -> Message {
        // JSON has no line breaks, which would end the field.
        Message::default()
            .id(format!("{}-{}", self.event, self.outcome))
            .event(name)
            .data(value.to_string())
    }
}

impl Wanted {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let known = [
            "cluster",
            "namespace",
            "kind",
            "name",
            "severity",
            "text",
            "past",
            "outcomes",
        ];
        let query = Query::read(query, &known)?;
        let outcomes = match query.text("outcomes").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                let problem = "outcomes: expected true or false";
                return Err(Problem::Invalid(problem.to_owned()));
            }
        };
        Ok(Self {
            selection: Selection {
                cluster: query.text("cluster"),
                namespace: query.text("namespace"),
                kind: query.text("kind"),
                name: query.text("name"),
                severity: query.text("severity"),
            },
            text: query.text("text").map(|text| text.to_lowercase()),
            past: query.number("past", 0..=MOST_PAST, 0)?,
            outcomes,
        })
    }

    /// The event of a message, if it is wanted.
    fn event(&self, subject: &str, payload: &[u8]) -> Option<Event> {
        let event = stored_event::read(subject, payload).ok()?;
        let has_text = |text: &String| event.message.to_lowercase().contains(text);
        let is_wanted = self.selection.includes(&event) && self.text.as_ref().is_none_or(has_text);
        is_wanted.then_some(event)
    }

    /// An outcome does not say which object it is about. With filters of objects, the page shows
    /// those of events that it shows.
    fn shows_outcome(&self, outcome: &Value) -> bool {
        let cluster = self.selection.cluster.as_ref();
        cluster.is_none_or(|cluster| outcome["cluster"] == **cluster)
    }
}

fn row(event: &Event) -> Value {
    // Every text has a bound, whatever the sender wrote.
    let message = cut_bytes(&event.message, MAX_MESSAGE_BYTES);
    let event = excerpt(event);
    let object = event.involved_object.clone().unwrap_or_default();
    json!({
        "id": event.id,
        "receivedAt": time(event.received_at),
        "cluster": event.cluster,
        "severity": event.severity,
        "kind": object.kind,
        "namespace": object.namespace,
        "name": object.name,
        "reason": event.reason,
        "message": message,
    })
}
