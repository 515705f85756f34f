//! The consumers of a tap of a fleet, whose credentials permit fixed names and one filter.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::ConsumerCreateStrictErrorKind;

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::tap_access::TapAccess;

/// The server deletes a consumer that nobody reads for this time.
const INACTIVE: Duration = Duration::from_secs(30);

impl Bus {
    /// What the credentials permit, if they are those of a tap of a fleet.
    pub fn tap(&self) -> Option<&TapAccess> {
        self.access.tap()
    }

    /// Creates a short-lived consumer under a name of the tap that is free.
    ///
    /// # Errors
    /// The bus is unavailable, the filter is not permitted, or all names are in use.
    pub async fn create_tap_consumer(
        &self,
        access: &TapAccess,
        filter: &str,
        start: DeliverPolicy,
    ) -> Result<PullConsumer, BusError> {
        let stream = self.jetstream.get_stream_no_info(streams::EVENTS).await;
        let stream = stream.map_err(unavailable)?;
        for name in &access.consumers {
            let config = pull::Config {
                name: Some(name.clone()),
                // An equal consumer of another process would be shared with it.
                description: Some(format!("{:016x}", rand::random::<u64>())),
                filter_subject: filter.to_owned(),
                deliver_policy: start,
                ack_policy: AckPolicy::None,
                inactive_threshold: INACTIVE,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            };
            match stream.create_consumer_strict(config).await {
                Ok(consumer) => return Ok(consumer),
                Err(error) if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(BusError::Unavailable(format!(
            "all {} consumers of this tap are in use",
            access.consumers.len()
        )))
    }
}
