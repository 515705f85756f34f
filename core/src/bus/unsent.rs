//! Limits the memory of messages that wait to be sent to NATS. A server that stops reading would
//! otherwise let them pile up in the client, also after their senders gave up.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bus::{Bus, BusError, CONFIRMATION_TIMEOUT};

/// The memory before [`Bus::limit_unsent`], in KiB.
const DEFAULT_KIB: usize = 64 << 10;

/// The memory for messages that are not sent yet.
#[derive(Debug)]
pub(super) struct Unsent {
    kib: usize,
    free: Arc<Semaphore>,
}

/// A message, and its memory until the client has sent it.
struct Encoded {
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unsent {
    pub(super) fn new(kib: usize) -> Self {
        Self {
            kib,
            free: Arc::new(Semaphore::new(kib)),
        }
    }

    async fn encode(&self, message: &impl Message) -> Result<Bytes, BusError> {
        let kib = (message.encoded_len() / 1024 + 1).min(self.kib);
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        let waiting = self.free.clone().acquire_many_owned(permits);
        match tokio::time::timeout(CONFIRMATION_TIMEOUT, waiting).await {
            Ok(Ok(memory)) => Ok(Bytes::from_owner(Encoded {
                bytes: message.encode_to_vec(),
                _memory: memory,
            })),
            _ => Err(BusError::Unavailable(
                "earlier messages are not sent yet".to_owned(),
            )),
        }
    }
}

impl Default for Unsent {
    fn default() -> Self {
        Self::new(DEFAULT_KIB)
    }
}

impl Bus {
    /// Sets the memory for messages that are not sent yet, at least that of the largest message.
    pub fn limit_unsent(&self, bytes: u64) {
        let largest = self.client.max_payload();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(largest);
        self.unsent.store(Arc::new(Unsent::new(bytes / 1024)));
    }

    /// Encodes a message once there is memory for it. The memory is held until the message is sent.
    pub(super) async fn encoded(&self, message: &impl Message) -> Result<Bytes, BusError> {
        self.unsent.load_full().encode(message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Event;

    #[tokio::test(start_paused = true)]
    async fn a_message_holds_its_memory_until_its_last_copy_is_sent() {
        let unsent = Unsent::new(100);
        let event = |kib: usize| Event {
            message: "m".repeat(kib << 10),
            ..Event::default()
        };
        let first = unsent.encode(&event(60)).await.unwrap();
        assert!(unsent.encode(&event(60)).await.is_err());
        assert!(unsent.encode(&event(30)).await.is_ok());
        let in_client = first.clone();
        drop(first);
        assert!(unsent.encode(&event(60)).await.is_err());
        drop(in_client);
        assert!(unsent.encode(&event(60)).await.is_ok());
        assert!(unsent.encode(&event(500)).await.is_ok(), "it is sent alone");
    }
}
