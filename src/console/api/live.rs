//! `/api/events`: events and outcomes as they happen, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use axum::extract::{RawQuery, State};
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
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::{Console, MAX_STREAM_TIME};

/// The most stored events that are looked through at the start.
const MOST_PAST: u64 = 10_000;
/// Messages that wait for a slow reader; then reading from the bus waits, too.
const BUFFER: usize = 64;
/// The longest text of a message that is shown.
const MAX_MESSAGE_BYTES: usize = 2000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a live stream shows.
struct Wanted {
    selection: Selection,
    /// A part of the message, in lower case.
    text: Option<String>,
    past: u64,
    outcomes: bool,
}

/// A live stream that follows the filters. It ends after an hour, and when the process stops; the
/// page then opens it again.
pub async fn stream(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Answer {
    let wanted = Wanted::read(query.as_deref())?;
    let permit = console.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::Busy)?;
    let bus = &console.parts.bus;
    let source = Source::open(bus).await?;
    let filter = source.filter(wanted.selection.filter())?;
    let last = source.last_sequence().await?.unwrap_or_default();
    let start = DeliverPolicy::ByStartSequence {
        start_sequence: last.saturating_sub(wanted.past) + 1,
    };
    // Subscribed first, so that no outcome of an event that is shown is missed.
    let outcomes = wanted.outcomes.then(|| console.recent.live());
    let (_, messages) = source.messages(&filter, start).await?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let streams = &console.parts.metrics.console_streams;
        streams.inc();
        let sending = send(&wanted, messages, outcomes, &sender);
        tokio::select! {
            () = sending => {}
            () = sender.closed() => {}
            () = console.parts.stop.cancelled() => {}
            () = tokio::time::sleep(MAX_STREAM_TIME) => {}
        }
        streams.dec();
        drop(permit);
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let sse = Sse::new(received(receiver)).keep_alive(keep_alive);
    Ok(sse.into_response())
}

fn received(receiver: mpsc::Receiver<Message>) -> impl Stream<Item = Result<Message, Infallible>> {
    stream::unfold(receiver, async |mut receiver| {
        let message = receiver.recv().await?;
        Some((Ok(message), receiver))
    })
}

/// Sends until the stream of events ends or nobody reads.
async fn send(
    wanted: &Wanted,
    mut messages: Messages,
    mut outcomes: Option<broadcast::Receiver<Arc<Value>>>,
    sender: &mpsc::Sender<Message>,
) {
    loop {
        let message = tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => wanted
                    .row(&message.subject, &message.payload)
                    .map(|row| data("event", &row)),
                // The page opens the stream again, which tries from the start.
                Some(Err(_)) | None => return,
            },
            outcome = next_outcome(&mut outcomes) => match outcome {
                Ok(outcome) => wanted
                    .shows_outcome(&outcome)
                    .then(|| data("outcome", &outcome)),
                Err(missed) => Some(data("missed", &json!({ "outcomes": missed }))),
            },
        };
        if let Some(message) = message
            && sender.send(message).await.is_err()
        {
            return;
        }
    }
}

/// Waits forever without outcomes.
///
/// # Errors
/// The number of outcomes that were missed, because the reader is slow.
async fn next_outcome(
    outcomes: &mut Option<broadcast::Receiver<Arc<Value>>>,
) -> Result<Arc<Value>, u64> {
    let Some(receiver) = outcomes else {
        return std::future::pending().await;
    };
    match receiver.recv().await {
        Ok(outcome) => Ok(outcome),
        Err(broadcast::error::RecvError::Lagged(missed)) => Err(missed),
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

fn data(name: &str, value: &Value) -> Message {
    // JSON has no line breaks, which would end the field.
    Message::default().event(name).data(value.to_string())
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
    fn row(&self, subject: &str, payload: &[u8]) -> Option<Value> {
        let event = stored_event::read(subject, payload).ok()?;
        let has_text = |text: &String| event.message.to_lowercase().contains(text);
        let is_wanted = self.selection.includes(&event) && self.text.as_ref().is_none_or(has_text);
        is_wanted.then(|| row(&event))
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
