//! Searches ready and parked deliveries, many at a time. A work queue has no second consumer, so
//! they are read with direct requests. Nothing is consumed.

use std::time::Duration;

use async_nats::header;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bus::park::MAY_BE_WOKEN;
use crate::bus::search::{Budget, SearchEnd, Start};
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::wire::Delivery;

/// The most messages and bytes that one request asks for.
const MOST_MESSAGES: u64 = 256;
const MOST_BYTES: u64 = 4 << 20;
/// The server answers within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A delivery that is stored, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingDelivery {
    /// The delivery.
    pub delivery: Delivery,
    /// When it was stored: became ready, or was parked.
    pub stored_at: Timestamp,
    /// When a parked delivery becomes ready. `None` for a ready one.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether a parked delivery waits for the circuit of its destination, and becomes ready
    /// earlier if that closes.
    pub waits_for_circuit: bool,
}

impl PendingDelivery {
    /// What it waits for: `worker`, `circuit`, `send-time`, `retry`, or `turn`.
    pub fn waits_for(&self) -> &'static str {
        match self.next_attempt_at {
            None => "worker",
            Some(_) if self.waits_for_circuit => "circuit",
            Some(_) if self.delivery.slot_ms > 0 => "send-time",
            Some(_) if self.delivery.attempt > 0 => "retry",
            Some(_) => "turn",
        }
    }
}

impl Bus {
    /// Calls `handle` with each delivery in DELIVERIES whose subject fits the filter, in the order
    /// in which they were stored, until the budget is spent.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn search_deliveries(
        &self,
        filter: &str,
        start: Start,
        budget: &mut Budget,
        mut handle: impl FnMut(PendingDelivery),
    ) -> Result<SearchEnd, BusError> {
        let mut start = start;
        loop {
            let batch = self.deliveries_from(filter, start).await?;
            let Some(last) = batch.last() else {
                return Ok(SearchEnd::Complete);
            };
            start = Start::Sequence(last.sequence + 1);
            for message in batch {
                if !budget.take(message.payload.len()) {
                    return Ok(SearchEnd::Cut);
                }
                if let Some(pending) = message.read() {
                    handle(pending);
                }
            }
        }
    }

    /// The next messages, empty after the last.
    async fn deliveries_from(&self, filter: &str, start: Start) -> Result<Vec<Stored>, BusError> {
        let inbox = self.client.new_inbox();
        let mut answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(unavailable)?;
        let subject = format!(
            "{}.DIRECT.GET.{}",
            self.access.api_prefix(),
            streams::DELIVERIES
        );
        let request = request(filter, start).to_string();
        self.client
            .publish_with_reply(subject, inbox, request.into())
            .await
            .map_err(unavailable)?;
        let mut found = Vec::new();
        loop {
            let next = timeout(ANSWER_WITHIN, answers.next()).await;
            let message = next.map_err(unavailable)?;
            let message =
                message.ok_or_else(|| BusError::Unavailable("not connected".to_owned()))?;
            match message.status {
                // The end of the batch; nothing (more) is found.
                Some(status) if matches!(status.as_u16(), 204 | 404) => return Ok(found),
                Some(status) if status.as_u16() >= 400 => {
                    let why = message.description.as_deref().unwrap_or("no description");
                    let refused = format!("the stream DELIVERIES cannot be read: {status} {why}");
                    return Err(BusError::Unavailable(refused));
                }
                _ => found.extend(Stored::of(message)),
            }
        }
    }
}

fn request(filter: &str, start: Start) -> Value {
    let mut request = json!({
        "batch": MOST_MESSAGES,
        "max_bytes": MOST_BYTES,
        "next_by_subj": filter,
    });
    match start {
        Start::Sequence(sequence) => request["seq"] = sequence.max(1).into(),
        Start::Time(time) => request["start_time"] = time.to_string().into(),
    }
    request
}

/// A message as the server sends it.
struct Stored {
    sequence: u64,
    stored_at: Timestamp,
    schedule: Option<Timestamp>,
    may_be_woken: bool,
    payload: Bytes,
}

impl Stored {
    /// `None` if it is no stored message.
    fn of(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers?;
        let value = |name: &str| Some(headers.get(name)?.as_str().to_owned());
        Some(Self {
            sequence: value("Nats-Sequence")?.parse().ok()?,
            stored_at: value("Nats-Time-Stamp")?.parse().ok()?,
            schedule: headers
                .get(header::NATS_SCHEDULE)
                .and_then(|schedule| schedule.as_str().strip_prefix("@at ")?.parse().ok()),
            may_be_woken: headers.get(MAY_BE_WOKEN).is_some(),
            payload: message.payload,
        })
    }

    /// `None` if it is no delivery.
    fn read(self) -> Option<PendingDelivery> {
        Some(PendingDelivery {
            delivery: Delivery::decode(self.payload).ok()?,
            stored_at: self.stored_at,
            next_attempt_at: self.schedule,
            waits_for_circuit: self.may_be_woken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_begins_at_a_sequence_or_at_a_time() {
        let from = |start| request("parked.>", start);
        assert_eq!(from(Start::Sequence(0))["seq"], 1);
        let time = Timestamp::from_second(1_767_323_045).unwrap();
        let request = from(Start::Time(time));
        assert_eq!(request["start_time"], "2026-01-02T03:04:05Z");
        assert_eq!(request.get("seq"), None);
        assert_eq!(request["next_by_subj"], "parked.>");
    }
}
