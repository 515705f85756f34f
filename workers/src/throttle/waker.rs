//! Wakes parked deliveries when the circuit of their destination has closed.
//!
//! A worker wakes them at once, and again a little later, because other workers park deliveries
//! until they have seen the change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::wake::WakeScope;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

/// By then every worker has seen the change and has finished parking.
const AGAIN_AFTER: Duration = Duration::from_secs(6);

/// Wakes parked deliveries.
pub struct Waker {
    bus: Bus,
    /// Providers whose deliveries will be woken.
    due: Mutex<HashSet<Destination>>,
}

impl Waker {
    /// A waker that has nothing to do yet.
    pub fn new(bus: &Bus) -> Arc<Self> {
        Arc::new(Self {
            bus: bus.clone(),
            due: Mutex::default(),
        })
    }

    /// Wakes the deliveries to a destination twice. `takes_unnamed` says whether deliveries without
    /// a channel belong to it.
    ///
    /// # Errors
    /// The bus is unavailable. Some deliveries may be woken.
    pub async fn wake(
        &self,
        destination: &Destination,
        takes_unnamed: bool,
    ) -> Result<(), BusError> {
        let up_to = self.wake_after(destination, takes_unnamed, 0).await?;
        tokio::time::sleep(jitter(AGAIN_AFTER)).await;
        self.wake_after(destination, takes_unnamed, up_to).await?;
        Ok(())
    }

    /// Wakes the deliveries to a Provider whose record of a pause was deleted, or resumed by an
    /// older version. This worker may have parked more since.
    pub fn wake_later(self: &Arc<Self>, destination: &Destination) {
        let provider = Destination::whole(&destination.namespace, &destination.provider);
        if !self.due.lock().insert(provider.clone()) {
            return;
        }
        let waker = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(jitter(AGAIN_AFTER)).await;
            waker.due.lock().remove(&provider);
            if let Err(error) = waker.wake_after(&provider, true, 0).await {
                tracing::warn!(
                    code = codes::WAKE_FAILED,
                    %error,
                    "parked deliveries not woken; they resume at their scheduled time"
                );
            }
        });
    }

    /// Wakes the deliveries that were parked after a sequence. Returns the last sequence that it
    /// read.
    async fn wake_after(
        &self,
        destination: &Destination,
        takes_unnamed: bool,
        after: u64,
    ) -> Result<u64, BusError> {
        let woken = self
            .bus
            .wake(destination, takes_unnamed, after, WakeScope::Circuit)
            .await?;
        tracing::info!(
            code = codes::DESTINATION_RESUMED,
            provider = %format!("{}/{}", destination.namespace, destination.provider),
            channel = destination.channel,
            woken = woken.count,
            "destination resumed"
        );
        Ok(woken.up_to)
    }
}
