//! Sends some events of an edge to the hub.

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;

use super::known::Known;
use super::stored::Stored;
use crate::bus::{Bus, BusError};
use crate::model::id;
use crate::runtime::codes::log as codes;
use crate::runtime::failpoint;
use crate::runtime::metrics::labels::EdgeOutcome;
use crate::runtime::traces::carrying;

/// How each event of a round ended.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The sequences that the hub gave to the events.
    pub(super) stored: Vec<u64>,
    pub(super) outcomes: Vec<EdgeOutcome>,
    /// How many of the events, from the first on, are done.
    pub(super) done: usize,
    /// Why the next one is not sent.
    pub(super) held: Option<Held>,
}

/// An event that is larger than the hub's server accepts now. It waits until the server accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "event {sequence} of the edge has {bytes} bytes, and the hub's server accepts {limit}: raise \
     max_payload of the hub's server to 8 MB"
)]
pub(super) struct Held {
    /// Its sequence on the edge.
    pub(super) sequence: u64,
    pub(super) bytes: usize,
    /// `max_payload` of the hub's server.
    pub(super) limit: usize,
}

/// Sends events in order, except those that the hub has already: they are taken out of `known`.
/// Stops before the first one that is too large for the hub's server.
///
/// # Guarantees
/// Returns after the hub confirmed all that were sent.
///
/// # Errors
/// The hub did not confirm all. Some may be stored, in the order of the events.
pub(super) async fn send(
    hub: &Bus,
    events: &[Stored],
    known: &mut Known,
) -> Result<Round, BusError> {
    let (mut round, mut sent) = (Round::default(), Vec::with_capacity(events.len()));
    failpoint::reach("edge:sending");
    for event in events {
        match start(hub, event, known).await? {
            Sending::Sent(confirmation) => sent.push(confirmation),
            Sending::Ended(outcome) => round.outcomes.push(outcome),
            Sending::Held(held) => {
                round.held = Some(held);
                break;
            }
        }
        round.done += 1;
    }
    for confirmation in sent {
        let stored = hub.confirmed(confirmation).await.map_err(BusError::from)?;
        round.stored.push(stored.sequence);
        round.outcomes.push(match stored.duplicate {
            true => EdgeOutcome::Duplicate,
            false => EdgeOutcome::Forwarded,
        });
    }
    failpoint::reach("edge:sent");
    Ok(round)
}

/// What became of an event that was to be sent.
enum Sending {
    Sent(PublishAckFuture),
    Ended(EdgeOutcome),
    Held(Held),
}

async fn start(hub: &Bus, stored: &Stored, known: &mut Known) -> Result<Sending, BusError> {
    let (event_id, dedupe_key) = match &stored.event {
        Ok(event) => event,
        Err(why) => return Ok(refused(stored, &why.to_string())),
    };
    if known.take(event_id) {
        return Ok(Sending::Ended(EdgeOutcome::Found));
    }
    let message_id = hub.message_id(&id::message_id_of_edge(dedupe_key, event_id));
    let message = PublishMessage::build()
        .message_id(message_id)
        .payload(stored.payload.clone());
    let sending = hub.send(stored.subject.clone(), message);
    let sent = carrying(stored.trace.clone(), sending).await;
    match sent.map_err(BusError::from) {
        Ok(confirmation) => Ok(Sending::Sent(confirmation)),
        // It was accepted with 202, so it waits until the hub is configured to take it.
        Err(BusError::TooLarge(limit)) => Ok(Sending::Held(Held {
            sequence: stored.sequence,
            bytes: stored.payload.len(),
            limit,
        })),
        Err(error) => Err(error),
    }
}

/// Drops a message that is no event of the edge. Ingest never stores one, so no sender got 202.
fn refused(stored: &Stored, why: &str) -> Sending {
    tracing::error!(
        code = codes::EDGE_EVENT_REFUSED,
        sequence = stored.sequence,
        error = why,
        "message of the edge's stream is no event of its ingest, it is not forwarded"
    );
    Sending::Ended(EdgeOutcome::Refused)
}
