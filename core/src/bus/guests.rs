//! Creates the consumers of members and taps of a fleet, whose requests are checked first
//! ([`crate::model::guest_consumer`]). Routers answer.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::bus::{Bus, BusError, unavailable};
use crate::model::guest_consumer::{self, PREFIX};

/// The server answers within this time, or the guest asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most requests at a time.
const MOST_REQUESTS: usize = 16;
/// Routers share the requests.
const QUEUE: &str = "tidings";
/// A guest reads an error of JetStream: a status, and the code of an invalid configuration.
const REFUSED: (u16, u32) = (400, 10_012);
const BUSY: (u16, u32) = (503, 10_041);

impl Bus {
    /// Whether the credentials are those of a router of a fleet, which answers guests.
    pub fn may_answer_guests(&self) -> bool {
        self.access.is_permitted("_R_.answer")
    }

    /// Listens to requests of guests. The caller passes them to [`Bus::answer_guests`].
    ///
    /// # Errors
    /// There is no connection.
    pub async fn guest_requests(&self) -> Result<Subscriber, BusError> {
        let subject = format!("{PREFIX}>");
        let subscribed = self.client.queue_subscribe(subject, QUEUE.to_owned()).await;
        subscribed.map_err(unavailable)
    }

    /// Answers requests of guests until the connection is closed. One that cannot be taken at once
    /// gets an error, so that requests do not add up here.
    pub async fn answer_guests(&self, mut requests: Subscriber) {
        let free = Arc::new(Semaphore::new(MOST_REQUESTS));
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply.clone() else {
                continue;
            };
            let Ok(permit) = free.clone().try_acquire_owned() else {
                let busy = "too many requests at a time; ask again";
                self.reply(reply.to_string(), error(BUSY, busy)).await;
                continue;
            };
            let bus = self.clone();
            tokio::spawn(async move {
                let answer = bus.answer_guest(&request).await;
                bus.reply(reply.to_string(), answer).await;
                drop(permit);
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

/// An answer in the form of JetStream's API.
fn error((status, code): (u16, u32), description: &str) -> Bytes {
    let answer = json!({
        "type": "io.nats.jetstream.api.v1.consumer_create_response",
        "error": {"code": status, "err_code": code, "description": description},
    });
    answer.to_string().into()
}
