//! Acknowledges messages that this process holds, or returns them to the server.

use async_nats::jetstream::AckKind;
use async_nats::{Message, Subject};
use bytes::Bytes;

use crate::bus::{Bus, BusError, CONFIRMATION_TIMEOUT, unavailable};
use crate::runtime::codes::log as codes;

impl Bus {
    /// Acknowledges a message and waits for the server's confirmation. An unconfirmed
    /// acknowledgement after a call to a service risks a second call.
    ///
    /// # Errors
    /// The server did not confirm: the message may be redelivered.
    pub async fn acknowledge(&self, message: &Message) -> Result<(), BusError> {
        let Some(reply) = message.reply.clone() else {
            return Ok(());
        };
        let request = self.client.request(reply, Bytes::from_static(b"+ACK"));
        match tokio::time::timeout(CONFIRMATION_TIMEOUT, request).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(BusError::Unavailable(format!(
                "acknowledgement not confirmed within {} s",
                CONFIRMATION_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Sends an acknowledgement or a progress report. Does not wait for a confirmation.
    pub async fn send_ack(&self, reply: Option<&Subject>, kind: AckKind) {
        let Some(reply) = reply else { return };
        #[expect(clippy::disallowed_methods, reason = "only the bus publishes messages")]
        let sent = self.client.publish(reply.clone(), kind.into()).await;
        if let Err(error) = sent {
            tracing::debug!(code = codes::ACK_NOT_SENT, %error, "acknowledgement not sent");
        }
    }

    /// Returns a message to the server, which redelivers it at once. Waits until the answer is
    /// sent, because the process may end next.
    pub async fn return_message(&self, reply: Option<&Subject>) {
        self.send_ack(reply, AckKind::Nak(None)).await;
        if let Err(error) = self.client.flush().await {
            tracing::debug!(
                code = codes::MESSAGE_NOT_RETURNED,
                %error,
                "message not returned to the server; it is redelivered after ack_wait"
            );
        }
    }
}
