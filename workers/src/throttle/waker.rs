//! Waking what a destination held up, once it is called again.
//!
//! Who wakes does so as soon as it knows, and once more a little later: a worker that has not heard
//! of it yet goes on parking until it has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

use tidings_core::Destination;
use tidings_core::bus::{Bus, BusError};

/// By then every worker has heard of it, and what it was parking is parked.
const ONCE_MORE_AFTER: Duration = Duration::from_secs(6);

/// Wakes for one process.
pub struct Waker {
    bus: Bus,
    /// Providers that are due to be woken.
    due: Mutex<HashSet<Destination>>,
}

impl Waker {
    /// Nothing is due.
    pub fn new(bus: &Bus) -> Arc<Self> {
        Arc::new(Self {
            bus: bus.clone(),
            due: Mutex::default(),
        })
    }

    /// Wakes what waits for a destination that this worker has found to be well. What this misses
    /// comes by itself.
    pub fn wake(self: &Arc<Self>, destination: Arc<Destination>, channel: String) {
        let waker = self.clone();
        tokio::spawn(async move {
            let woken = async {
                let up_to = waker.wake_after(&destination, &channel, 0).await?;
                tokio::time::sleep(jitter(ONCE_MORE_AFTER)).await;
                waker.wake_after(&destination, &channel, up_to).await
            };
            report(woken.await);
        });
    }

    /// Wakes, a little later, what waits for a Provider that others have resumed: what this worker
    /// was parking meanwhile, they may have missed.
    pub fn wake_later(self: &Arc<Self>, destination: &Destination) {
        let provider = Destination::whole(&destination.namespace, &destination.provider);
        if !self.due.lock().insert(provider.clone()) {
            return;
        }
        let waker = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(jitter(ONCE_MORE_AFTER)).await;
            waker.due.lock().remove(&provider);
            report(waker.wake_after(&provider, "", 0).await);
        });
    }

    /// Up to which sequence it has looked.
    async fn wake_after(
        &self,
        destination: &Destination,
        channel: &str,
        after: u64,
    ) -> Result<u64, BusError> {
        let woken = self.bus.wake(destination, channel, after).await?;
        tracing::info!(code = codes::DESTINATION_RESUMED, provider = %destination.tokens(), woken = woken.count, "destination is called again");
        Ok(woken.up_to)
    }
}

fn report(woken: Result<u64, BusError>) {
    if let Err(error) = woken {
        tracing::warn!(code = codes::WAKE_FAILED, %error, "parked deliveries not woken; they resume at their scheduled time");
    }
}
