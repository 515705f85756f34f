//! The state of a consumer, as the server reports it.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::bus::Bus;

/// The state of a consumer. The client's own type has another type for times.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerState {
    /// When the consumer was created.
    pub created: Timestamp,
    /// The last message that was delivered.
    pub delivered: Sequences,
    /// All messages up to this one are acknowledged.
    pub ack_floor: Sequences,
    /// The number of messages that were not delivered yet.
    pub num_pending: u64,
    /// The number of messages that were delivered and are not acknowledged.
    pub num_ack_pending: u64,
}

/// A message by its sequence in the stream, and by the number of deliveries until then.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Sequences {
    /// The sequence in the stream.
    pub stream_seq: u64,
    /// The number of deliveries.
    pub consumer_seq: u64,
}

impl Bus {
    /// Reads the state of a consumer. `None` if it does not exist.
    ///
    /// # Errors
    /// The server does not answer, or refuses the request.
    pub(in crate::bus) async fn consumer_state(
        &self,
        stream: &str,
        consumer: &str,
    ) -> Result<Option<ConsumerState>, String> {
        let subject = format!("CONSUMER.INFO.{stream}.{consumer}");
        let response = self.jetstream().request(subject, &json!({})).await;
        match response
            .map_err(|error| format!("cannot read the state of consumer {consumer}: {error}"))?
        {
            Response::Ok::<ConsumerState>(state) => Ok(Some(state)),
            Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                Ok(None)
            }
            Response::Err { error } => Err(format!("consumer {consumer}: {error}")),
        }
    }
}
