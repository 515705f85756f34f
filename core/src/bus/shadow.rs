//! Records of shadow mode: what would have been delivered. Nothing sends them.

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message as _;
use tokio::time::timeout;

use crate::bus::publish::PublishAck;
use crate::bus::streams::{self, Sizing};
use crate::bus::{Bus, BusError, unavailable};
use crate::model::subject;
use crate::model::time::to_offset;
use crate::wire::ShadowRecord;

/// The server sends the next stored record within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl Bus {
    /// Creates the stream of records. One that exists is left as it is.
    ///
    /// # Errors
    /// The server refuses, for example because another stream has a part of its subjects.
    pub async fn create_shadow_stream(&self, sizing: &Sizing) -> Result<(), BusError> {
        let found = self.find_stream(streams::SHADOW).await;
        if found.map_err(unavailable)?.is_some() {
            return Ok(());
        }
        let created = self.create_stream(streams::shadow(sizing)).await;
        created.map(drop).map_err(unavailable)
    }

    /// Stores a record. The delivery's id is the message id, so that an event that is routed again
    /// within two minutes is recorded once.
    ///
    /// # Errors
    /// The record might not be stored: the event must not be acknowledged.
    pub async fn store_shadow_record(&self, record: &ShadowRecord) -> Result<PublishAck, BusError> {
        let provider = record.provider.clone().unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(&record.delivery_id)
            .payload(self.encoded(record).await?);
        Ok(self.publish(subject::shadow(&provider), message).await?)
    }

    /// Calls `handle` with each record that was stored since a time, oldest first. Returns whether
    /// the stream exists.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream changed while it was read.
    pub async fn shadow_records(
        &self,
        since: Timestamp,
        mut handle: impl FnMut(ShadowRecord),
    ) -> Result<bool, BusError> {
        if self
            .find_stream(streams::SHADOW)
            .await
            .map_err(unavailable)?
            .is_none()
        {
            return Ok(false);
        }
        let stream = self.jetstream.get_stream_no_info(streams::SHADOW).await;
        let stream = stream.map_err(unavailable)?;
        let start_time = to_offset(since);
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(unavailable)?;
        while left > 0 {
            // What is left may be discarded meanwhile; the consumer would then wait forever.
            let Ok(Some(message)) = timeout(READ_TIMEOUT, messages.next()).await else {
                let why = "the stream SHADOW changed while it was read; run the command again";
                return Err(BusError::Unavailable(why.to_owned()));
            };
            let message = message.map_err(unavailable)?;
            let pending = message.info().map_err(unavailable)?.pending;
            if let Ok(record) = ShadowRecord::decode(message.payload.clone()) {
                handle(record);
            }
            // Records that arrive meanwhile are not waited for.
            left = pending.min(left - 1);
        }
        Ok(true)
    }
}
