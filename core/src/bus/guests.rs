//! Creates the consumers of members and taps of a fleet, whose requests are checked first
//! ([`crate::model::guest_consumer`]). Routers answer.
//!
//! ```text
//!  request ─► too large? ─► waits behind others of the guest ─► waits for one of 16 ─► server
//! ```
//!
//! Each wait is short and bounded, so that no guest holds up the others.

mod lanes;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::bus::guests::lanes::Lanes;
use crate::bus::{Bus, BusError, unavailable};
use crate::model::guest_consumer::{self, LARGEST, PREFIX};

/// The server answers within this time, or the guest asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Routers share the requests.
const QUEUE: &str = "tidings";
/// A guest reads an error of JetStream: a status, and the code of an invalid configuration.
const REFUSED: (u16, u32) = (400, 10_012);
const BUSY: (u16, u32) = (503, 10_041);

impl Bus {
    /// Listens to requests of guests. The caller passes them to [`Bus::answer_guests`].
    ///
    /// # Errors
    /// There is no connection.
    pub async fn guest_requests(&self) -> Result<Subscriber, BusError> {
        let subject = format!("{PREFIX}>");
        let subscribed = self.client.queue_subscribe(subject, QUEUE.to_owned()).await;
        subscribed.map_err(unavailable)
    }

    /// Answers requests of guests until the connection is closed.
    pub async fn answer_guests(&self, mut requests: Subscriber) {
        let lanes = Arc::new(Lanes::default());
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply.clone() else {
                continue;
            };
            let (bus, lanes) = (self.clone(), lanes.clone());
            // What is too large is not kept while it waits.
            let request = match request.payload.len() > LARGEST {
                true => Err(request.subject),
                false => Ok(request),
            };
            let Some(place) = lanes.enter(guest(match &request {
                Ok(request) => &request.subject,
                Err(subject) => subject,
            })) else {
                bus.reply(reply.to_string(), busy()).await;
                continue;
            };
            tokio::spawn(async move {
                let answer = match (request, place.turn().await) {
                    (Err(_), _) => error(REFUSED, "refused by the hub: the request is too large"),
                    (Ok(_), None) => busy(),
                    (Ok(request), Some(_turn)) => bus.answer_guest(&request).await,
                };
                bus.reply(reply.to_string(), answer).await;
            });
        }
    }

    async fn answer_guest(&self, request: &Message) -> Bytes {
        let checked = match guest_consumer::check(&request.subject, &request.payload) {
            Ok(checked) => checked,
            Err(why) => return error(REFUSED, &format!("refused by the hub: {why}")),
        };
        let asked = self.client.request(checked.subject, checked.body.into());
        match timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.payload,
            _ => error(BUSY, "the NATS server of the hub does not answer"),
        }
    }

    async fn reply(&self, to: String, answer: Bytes) {
        // A guest without an answer asks again.
        #[expect(clippy::disallowed_methods, reason = "only the bus publishes messages")]
        let _ = self.client.publish(to, answer).await;
    }
}

/// Who asks: the name of the consumer without its number.
fn guest(subject: &str) -> &str {
    let request = subject.strip_prefix(PREFIX).unwrap_or_default();
    let consumer = request.split('.').next().unwrap_or_default();
    consumer
        .rsplit_once('-')
        .map_or(consumer, |(guest, _)| guest)
}

fn busy() -> Bytes {
    error(BUSY, "too many requests at a time; ask again")
}

/// An answer in the form of JetStream's API.
fn error((status, code): (u16, u32), description: &str) -> Bytes {
    let answer = json!({
        "type": "io.nats.jetstream.api.v1.consumer_create_response",
        "error": {"code": status, "err_code": code, "description": description},
    });
    answer.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_named_by_its_consumers() {
        for (subject, expected) in [
            ("ingest-dev=2E1-3.events.dev=2E1.>", "ingest-dev=2E1"),
            ("tap-audit-eu-0.events.>", "tap-audit-eu"),
            ("x", "x"),
        ] {
            assert_eq!(guest(&format!("{PREFIX}{subject}")), expected);
        }
    }
}
