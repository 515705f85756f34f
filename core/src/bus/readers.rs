//! Short-lived consumers with which an ingest reads the events of its own cluster.
//!
//! The request that creates one names the consumer and its filter in its subject, so a server can
//! permit a member exactly these names and its own cluster. Names of choice would not do: a client
//! that may create any name could replace the filter of the consumer `router`.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{ConsumerCreateStrictErrorKind, Stream};

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::jitter::jitter;
use crate::model::token::Token;

/// The number of consumers that all replicas of a cluster's ingest may have at the same time.
pub const MAX_READERS: usize = 4;
/// A process that finds all names in use tries this often. A read takes a few milliseconds.
const MAX_ROUNDS: u32 = 8;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The name of the consumer with this number, from 0 to [`MAX_READERS`] - 1.
pub fn reader_name(cluster: &Token, number: usize) -> String {
    format!("ingest-{cluster}-{number}")
}

/// A consumer that this process created.
pub(super) struct Reader {
    stream: Stream<()>,
    name: String,
    pub(super) consumer: PullConsumer,
}

impl Bus {
    /// Creates a consumer for the events of a cluster under a name that no other process uses now.
    ///
    /// # Errors
    /// The bus is unavailable, or does not permit the request, or all names are in use.
    pub(super) async fn create_reader(
        &self,
        cluster: &Token,
        config: pull::Config,
    ) -> Result<Reader, BusError> {
        let stream = self.jetstream.get_stream_no_info(streams::EVENTS).await;
        let stream = stream.map_err(unavailable)?;
        let first = rand::random_range(0..MAX_READERS);
        for round in 0..MAX_ROUNDS {
            if round > 0 {
                tokio::time::sleep(jitter(PAUSE)).await;
            }
            for number in 0..MAX_READERS {
                let name = reader_name(cluster, (first + number) % MAX_READERS);
                if let Some(reader) = create(&stream, name, &config).await? {
                    return Ok(reader);
                }
            }
        }
        Err(BusError::Unavailable(format!(
            "all {MAX_READERS} consumers of cluster {cluster} in EVENTS are in use"
        )))
    }
}

/// Creates a consumer. `None` if the name is in use.
pub(super) async fn create(
    stream: &Stream<()>,
    name: String,
    config: &pull::Config,
) -> Result<Option<Reader>, BusError> {
    let config = pull::Config {
        name: Some(name.clone()),
        // An equal consumer of another process would be shared with it.
        description: Some(format!("{:016x}", rand::random::<u64>())),
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        ..config.clone()
    };
    match stream.create_consumer_strict(config).await {
        Ok(consumer) => Ok(Some(Reader {
            stream: stream.clone(),
            name,
            consumer,
        })),
        Err(error) if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

impl Reader {
    /// Deletes the consumer, so that its name is free. If that fails, the consumer expires.
    pub(super) async fn end(self) {
        drop(self.stream.delete_consumer(&self.name).await);
    }
}
