//! Sends some events of an edge to the hub.

use std::collections::HashSet;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;

use super::stored::Stored;
use crate::bus::{Bus, BusError};
use crate::model::id;
use crate::runtime::codes::log as codes;
use crate::runtime::failpoint;
use crate::runtime::metrics::labels::EdgeOutcome;

/// How each event of a round ended.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The sequences that the hub gave to the events.
    pub(super) stored: Vec<u64>,
    pub(super) outcomes: Vec<EdgeOutcome>,
}

/// Sends events in order, except those that the hub has already: they are taken out of `known`.
///
/// # Guarantees
/// Returns after the hub confirmed all of them.
///
/// # Errors
/// The hub did not confirm all. Some may be stored, in the order of the events.
pub(super) async fn send(
    hub: &Bus,
    events: &[Stored],
    known: &mut HashSet<String>,
) -> Result<Round, BusError> {
    let (mut round, mut sent) = (Round::default(), Vec::with_capacity(events.len()));
    failpoint::reach("edge:sending");
    for event in events {
        match start(hub, event, known).await? {
            Sending::Sent(confirmation) => sent.push(confirmation),
            Sending::Ended(outcome) => round.outcomes.push(outcome),
        }
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
}

async fn start(
    hub: &Bus,
    stored: &Stored,
    known: &mut HashSet<String>,
) -> Result<Sending, BusError> {
    let (event_id, dedupe_key) = match &stored.event {
        Ok(event) => event,
        Err(why) => return Ok(refused(stored, &why.to_string())),
    };
    if known.remove(event_id) {
        return Ok(Sending::Ended(EdgeOutcome::Duplicate));
    }
    let message_id = hub.message_id(&id::message_id_of_edge(dedupe_key, event_id));
    let message = PublishMessage::build()
        .message_id(message_id)
        .payload(stored.payload.clone());
    let sent = hub.send(stored.subject.clone(), message).await;
    match sent.map_err(BusError::from) {
        Ok(confirmation) => Ok(Sending::Sent(confirmation)),
        // A retry would not help, and all later events would wait for it.
        Err(error @ BusError::TooLarge(_)) => Ok(refused(stored, &error.to_string())),
        Err(error) => Err(error),
    }
}

fn refused(stored: &Stored, why: &str) -> Sending {
    tracing::error!(
        code = codes::EDGE_EVENT_REFUSED,
        sequence = stored.sequence,
        error = why,
        "event of the edge cannot be stored on the hub, it is dropped"
    );
    Sending::Ended(EdgeOutcome::Refused)
}
