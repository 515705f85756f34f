//! Reads the messages of a pull that does not wait for new ones.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::Batch;
use futures::StreamExt;
use tokio::time::timeout;

use crate::bus::{BusError, unavailable};

/// The server sends the next message within this time. A server that is killed in between sends
/// nothing, and the client then waits without an end.
const NEXT_WITHIN: Duration = Duration::from_secs(10);

/// The next message; `None` after the last one.
///
/// # Errors
/// The server reports an error, or sends nothing.
pub(super) async fn next(batch: &mut Batch) -> Option<Result<Message, BusError>> {
    match timeout(NEXT_WITHIN, batch.next()).await {
        Ok(message) => message.map(|message| message.map_err(unavailable)),
        Err(_) => Some(Err(unavailable("the server does not send what it has"))),
    }
}
