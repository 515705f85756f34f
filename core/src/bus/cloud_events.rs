//! Events that a bridge republishes as CloudEvents, and the stream for them.

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;

use crate::bus::publish::PublishAck;
use crate::bus::streams::{self, Sizing};
use crate::bus::{Bus, BusError, unavailable};
use crate::model::cloud_event::CONTENT_TYPE;

impl Bus {
    /// Stores a CloudEvent in the stream that has the subject. The event's id is the message id.
    ///
    /// # Guarantees
    /// The stream stores an event once within its duplicate window.
    ///
    /// # Errors
    /// The CloudEvent might not be stored: the event must not be acknowledged.
    pub async fn store_cloud_event(
        &self,
        subject: String,
        id: &str,
        payload: Bytes,
    ) -> Result<PublishAck, BusError> {
        let message = PublishMessage::build()
            .message_id(id)
            .header("Content-Type", CONTENT_TYPE)
            .payload(payload);
        Ok(self.publish(subject, message).await?)
    }

    /// Creates the stream of CloudEvents. One that exists is left as it is.
    ///
    /// # Errors
    /// The server refuses, for example because another stream has a part of its subjects.
    pub async fn create_cloud_events_stream(&self, sizing: &Sizing) -> Result<(), BusError> {
        let found = self.find_stream(streams::CLOUD_EVENTS).await;
        if found.map_err(unavailable)?.is_some() {
            return Ok(());
        }
        let created = self.create_stream(streams::cloud_events(sizing)).await;
        created.map(drop).map_err(unavailable)
    }
}
