//! Recreates a consumer whose state the server cannot read.

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};

use crate::runtime::codes::log as codes;

/// How the server describes that it cannot read or write the state of a consumer.
const STORE_FAILED: &str = "error creating store for consumer";

/// Whether the server cannot read the state of a consumer, which therefore does not exist. The same
/// error means that the state cannot be written; a lease excludes that.
pub fn is_unreadable(error: &ConsumerError) -> bool {
    let ConsumerErrorKind::JetStream(error) = error.kind() else {
        return false;
    };
    match error.error_code() {
        ErrorCode::CONSUMER_STORE_FAILED => true,
        ErrorCode::CONSUMER_CREATE => error.to_string().contains(STORE_FAILED),
        _ => false,
    }
}

fn is_not_found(error: &ConsumerError) -> bool {
    let not_found = |error: &jetstream::Error| error.error_code() == ErrorCode::CONSUMER_NOT_FOUND;
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if not_found(&error))
}

/// Deletes a consumer and creates it again. The caller has the lease.
///
/// A single server does not know a consumer whose file it cannot read, so it cannot delete the file
/// either. Then the state of the new consumer is kept in memory, under the same name. After a
/// restart of the server the consumer is missing, and is recreated again.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn replace(
    stream: &Stream<()>,
    name: &str,
    config: pull::Config,
    why: &str,
) -> Result<PullConsumer, String> {
    match stream.delete_consumer(name).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(format!("cannot delete consumer {name}: {error}")),
    }
    let (created, storage) = match stream.create_consumer(config.clone()).await {
        Err(error) if is_unreadable(&error) => {
            let in_memory = pull::Config {
                memory_storage: true,
                ..config
            };
            (stream.create_consumer(in_memory).await, "memory")
        }
        created => (created, "file"),
    };
    let created = created.map_err(|error| format!("cannot recreate consumer {name}: {error}"))?;
    let info = created.cached_info();
    let after = match info.config.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence.saturating_sub(1),
        _ => 0,
    };
    tracing::error!(
        code = codes::CONSUMER_RECREATED,
        stream = info.stream_name,
        consumer = name,
        after,
        storage,
        reason = why,
        "consumer state lost, consumer recreated"
    );
    Ok(created)
}
