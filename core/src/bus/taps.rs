//! The consumers of a tap of a fleet, whose credentials permit fixed names and one filter.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};

use crate::bus::{Bus, BusError, readers, streams, unavailable};
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
        let config = pull::Config {
            filter_subject: filter.to_owned(),
            deliver_policy: start,
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        };
        for name in &access.consumers {
            if let Some(reader) = readers::create(&stream, name.clone(), &config).await? {
                return Ok(reader.consumer);
            }
        }
        Err(BusError::Unavailable(format!(
            "all {} consumers of this tap are in use",
            access.consumers.len()
        )))
    }
}
