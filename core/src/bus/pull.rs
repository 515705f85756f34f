//! Pulls messages. A role requests only as many as it can start now, and reports progress to the
//! server while it handles them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::{self, Batch, BatchBuilder};
use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;

mod consumer;
mod position;

use consumer::{Supply, begins_after};

/// A pull without messages ends after this time. A broken consumer is noticed within it.
const PULL_FOR: Duration = Duration::from_secs(10);
/// How often a held message is reported as in progress. Shorter than `ACK_WAIT`.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// How long a pull waits for several permits to become free, because small pulls cost as much as
/// large ones.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// How often a role that must not pull now checks again.
const PAUSED_FOR: Duration = Duration::from_millis(500);
/// The pause after a first error. It doubles with each further error.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The most messages of a pull from a replicated consumer, which cannot be limited in bytes.
const MOST_REPLICATED: usize = 32;
/// What the server answers to a pull whose next message exceeds its bytes.
const EXCEEDS_BYTES: &str = "Exceeds MaxBytes";

/// Pulls messages of one consumer and runs a task for each.
pub struct Puller {
    /// The bus.
    pub bus: Bus,
    /// The name of the stream.
    pub stream: &'static str,
    /// The configuration of the consumer, which is created if it is missing.
    pub consumer: pull::Config,
    /// The highest number of messages that are held at the same time.
    pub capacity: usize,
    /// The most bytes of one pull. A larger message is pulled alone.
    pub bytes: usize,
    /// The memory for pulled messages, which several pullers can share.
    pub memory: PullMemory,
    /// Succeeds with every pull that the server answers.
    pub check: Check,
    /// Whether a missing or changed consumer is created or restored. Otherwise pulls fail.
    pub restores: bool,
}

/// What a pull brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pull {
    /// Nothing, within [`PULL_FOR`].
    Empty,
    /// At least one message.
    Messages,
    /// Nothing, because the next message exceeds [`Puller::bytes`].
    TooLarge,
}

/// Why nothing can be pulled.
#[derive(Debug, thiserror::Error)]
enum PullError {
    /// The connection was lost meanwhile.
    #[error("connected again")]
    Reconnected,
    /// The consumer cannot be recreated without an operator.
    #[error("{0}")]
    PositionUnknown(String),
    #[error("{0}")]
    Failed(String),
}

impl From<String> for PullError {
    fn from(trouble: String) -> Self {
        Self::Failed(trouble)
    }
}

/// A message that this process holds.
pub struct Pulled {
    /// The message itself.
    pub message: Message,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The number of messages that the consumer has delivered so far, this one included, plus the
    /// sequences before its start.
    pub consumer_sequence: u64,
    /// How often this message was delivered, this time included.
    pub delivered: i64,
    /// When the server stored the message.
    pub stored_at: Timestamp,
    memory: Mutex<Option<OwnedSemaphorePermit>>,
}

/// The memory for pulled messages, in KiB. While it is used up, nothing more is pulled.
#[derive(Clone)]
pub struct PullMemory {
    kib: usize,
    /// The memory that a message needs, as a multiple of its size.
    copies: usize,
    free: Arc<Semaphore>,
}

/// The two steps of a shutdown.
#[derive(Clone)]
pub struct Stop {
    /// Canceled first: nothing more is pulled.
    pub pulling: CancellationToken,
    /// Canceled when the grace period is over: held messages are returned.
    pub holding: CancellationToken,
}

impl Puller {
    /// Pulls until `stop.pulling`, then waits for the messages it holds. `handle` runs in a task
    /// for each message. `may_pull` is called before each pull.
    ///
    /// # Guarantees
    /// A held message is not redelivered while `handle` runs, unless this process or the connection
    /// stalls for longer than `ack_wait`. Messages that are not handled when `stop.holding` is
    /// canceled are returned at once.
    pub async fn run<H, F>(self, stop: Stop, may_pull: impl Fn() -> bool, handle: H)
    where
        H: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let pulling = self.pull_until_stopped(stop, may_pull, handle);
        tokio::select! {
            () = pulling => {}
            () = self.keep_position_forever(), if self.keeps_position() => {}
        }
    }

    async fn pull_until_stopped<H, F>(&self, stop: Stop, may_pull: impl Fn() -> bool, handle: H)
    where
        H: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(self.capacity));
        let held = TaskTracker::new();
        let mut pause = FIRST_PAUSE;
        while !stop.pulling.is_cancelled() {
            let began = Instant::now();
            let pulling = self.pull_until_error(&stop, &may_pull, &permits, &held, &handle);
            match pulling.await {
                Ok(()) => break,
                Err(PullError::Reconnected) => continue,
                // The client logs that the connection is lost, once for all consumers.
                Err(_) if !self.bus.is_connected() => self.check.fail("not connected"),
                Err(trouble) => {
                    self.log(&trouble);
                    self.check.fail(trouble.to_string());
                }
            }
            if began.elapsed() > 2 * MAX_PAUSE {
                pause = FIRST_PAUSE;
            }
            let wait = tokio::time::sleep(jitter(pause));
            let _ = stop.pulling.run_until_cancelled(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        held.close();
        held.wait().await;
    }

    /// Returns `Ok` when `stop.pulling` is canceled.
    async fn pull_until_error<H, F>(
        &self,
        stop: &Stop,
        may_pull: &impl Fn() -> bool,
        permits: &Arc<Semaphore>,
        held: &TaskTracker,
        handle: &H,
    ) -> Result<(), PullError>
    where
        H: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = self.bus.connections();
        let Some(consumer) = stop.pulling.run_until_cancelled(self.consumer()).await else {
            return Ok(());
        };
        let consumer = consumer?;
        let mut supply = Supply::of(consumer.cached_info());
        let mut is_alone = false;
        if supply == Supply::Empty {
            self.check.succeed();
        }
        loop {
            // A server that restarted may have lost the consumer's state.
            if self.bus.connections() != connections {
                return Err(PullError::Reconnected);
            }
            if !may_pull() {
                self.check.succeed();
                let paused = tokio::time::sleep(PAUSED_FOR);
                if stop.pulling.run_until_cancelled(paused).await.is_none() {
                    return Ok(());
                }
                continue;
            }
            let gathering = timeout(PULL_FOR, self.gather(permits));
            let Some(gathered) = stop.pulling.run_until_cancelled(gathering).await else {
                return Ok(());
            };
            // A process that holds as many messages as allowed is healthy. It pulls with the next
            // free permit.
            let Ok(free) = gathered else {
                self.check.succeed();
                continue;
            };
            let start = |pulled, permit| {
                let holding = stop.holding.clone();
                held.spawn(hold(
                    self.bus.clone(),
                    pulled,
                    permit,
                    holding,
                    handle.clone(),
                ));
            };
            let request = self.request(&consumer, free.num_permits(), is_alone);
            let Some(pull) = self.pull(request, free, &stop.pulling, start).await? else {
                return Ok(());
            };
            is_alone = pull == Pull::TooLarge;
            if !self.bus.is_connected() {
                return Err("not connected".to_owned().into());
            }
            supply = if pull == Pull::Empty {
                self.check_supply(&consumer, supply).await?
            } else {
                Supply::Empty
            };
            if supply == Supply::Empty {
                self.check.succeed();
            }
        }
    }

    fn log(&self, trouble: &PullError) {
        let (stream, consumer) = (self.stream, self.name());
        if let PullError::PositionUnknown(error) = trouble {
            tracing::error!(
                code = codes::CONSUMER_POSITION_UNKNOWN,
                stream,
                consumer,
                error,
                "consumer lost and its position is unknown"
            );
        } else {
            tracing::warn!(
                code = codes::PULL_FAILED,
                stream,
                consumer,
                error = %trouble,
                "pull failed, retrying"
            );
        }
    }

    /// A pull of this many messages, limited in bytes; or of one message of any size. For a
    /// replicated consumer, nats-server 2.15 says that a pull with a limit in bytes is complete
    /// before it sends the last messages, and the client then stops to read.
    fn request<'a>(
        &self,
        consumer: &'a PullConsumer,
        messages: usize,
        is_alone: bool,
    ) -> (BatchBuilder<'a>, u64) {
        let request = consumer.batch().expires(PULL_FOR);
        let cluster = consumer.cached_info().cluster.as_ref();
        let is_replicated = cluster.is_some_and(|cluster| !cluster.replicas.is_empty());
        let request = match is_alone {
            true => request.max_messages(1),
            false if is_replicated => request.max_messages(messages.min(MOST_REPLICATED)),
            false => request.max_messages(messages).max_bytes(self.bytes),
        };
        (request, begins_after(consumer))
    }

    /// Pulls once, at most as many messages as there are permits. Returns `None` when `stop` is
    /// canceled.
    async fn pull(
        &self,
        (request, begins_after): (BatchBuilder<'_>, u64),
        mut free: OwnedSemaphorePermit,
        stop: &CancellationToken,
        start: impl Fn(Pulled, OwnedSemaphorePermit),
    ) -> Result<Option<Pull>, String> {
        let mut batch = request
            .messages()
            .await
            .map_err(|error| error.to_string())?;
        let mut pull = Pull::Empty;
        loop {
            let Some(next) = stop.run_until_cancelled(batch.next()).await else {
                return_arrived(&self.bus, batch).await;
                return Ok(None);
            };
            let Some(message) = next else { break };
            let message = match message.map_err(|error| error.to_string()) {
                Ok(message) => message,
                Err(error) if error.contains(EXCEEDS_BYTES) && pull == Pull::Empty => {
                    return Ok(Some(Pull::TooLarge));
                }
                Err(error) if error.contains(EXCEEDS_BYTES) => break,
                Err(error) => return Err(error),
            };
            pull = Pull::Messages;
            let memory = timeout(PROGRESS_EVERY, self.memory.take(message.length));
            let Some(memory) = stop.run_until_cancelled(memory).await else {
                self.bus.return_message(message.reply.as_ref()).await;
                return_arrived(&self.bus, batch).await;
                return Ok(None);
            };
            let Ok(memory) = memory else {
                return_arrived(&self.bus, batch).await;
                return self
                    .wait_with(message, begins_after, free, stop, start)
                    .await;
            };
            let pulled = Pulled::new(message, begins_after, memory)?;
            self.check.succeed();
            let Some(permit) = free.split(1) else { break };
            start(pulled, permit);
            if free.num_permits() == 0 {
                break;
            }
        }
        Ok(Some(pull))
    }

    /// Waits for the memory of a message, the rest of whose pull was returned.
    async fn wait_with(
        &self,
        message: Message,
        begins_after: u64,
        mut free: OwnedSemaphorePermit,
        stop: &CancellationToken,
        start: impl Fn(Pulled, OwnedSemaphorePermit),
    ) -> Result<Option<Pull>, String> {
        let Some(memory) = stop.run_until_cancelled(self.memory_for(&message)).await else {
            self.bus.return_message(message.reply.as_ref()).await;
            return Ok(None);
        };
        let pulled = Pulled::new(message, begins_after, memory)?;
        self.check.succeed();
        if let Some(permit) = free.split(1) {
            start(pulled, permit);
        }
        Ok(Some(Pull::Messages))
    }

    /// Waits for the memory of a message, which is reported as in progress meanwhile.
    async fn memory_for(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        loop {
            let memory = self.memory.take(message.length);
            match timeout(PROGRESS_EVERY, memory).await {
                Ok(memory) => return memory,
                Err(_) => self.check.succeed(),
            }
            let reply = message.reply.as_ref();
            self.bus.send_ack(reply, AckKind::Progress).await;
        }
    }

    /// Acquires all free permits, at least one. Waits a moment for a quarter of all permits.
    async fn gather(&self, permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        let enough = u32::try_from((self.capacity / 4).max(1)).unwrap_or(u32::MAX);
        let gathering = permits.clone().acquire_many_owned(enough);
        let acquired = match timeout(GATHER_FOR, gathering).await {
            Ok(acquired) => acquired,
            Err(_) => permits.clone().acquire_owned().await,
        };
        let mut free = acquired.expect("the semaphore is never closed");
        let rest = u32::try_from(permits.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = permits.clone().try_acquire_many_owned(rest) {
            free.merge(more);
        }
        free
    }
}

impl Pulled {
    /// `begins_after` is the sequence after which the consumer begins.
    fn new(
        message: Message,
        begins_after: u64,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, String> {
        let info = message.info().map_err(|error| error.to_string())?;
        let (sequence, consumer_sequence, delivered) = (
            info.stream_sequence,
            info.consumer_sequence + begins_after,
            info.delivered,
        );
        let stored_at = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos());
        let stored_at = stored_at.map_err(|error| error.to_string())?;
        Ok(Self {
            message,
            sequence,
            consumer_sequence,
            delivered,
            stored_at,
            memory: Mutex::new(memory),
        })
    }

    /// Frees the memory of the message early: it is accounted for elsewhere.
    pub fn release_memory(&self) {
        self.memory.lock().take();
    }
}

impl PullMemory {
    /// Memory of this many bytes. A message needs `copies` times its size.
    pub fn new(bytes: u64, copies: usize) -> Self {
        let kib = usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        let kib = kib.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            kib,
            copies,
            free: Arc::new(Semaphore::new(kib)),
        }
    }

    /// Waits for the memory of a message. A message that needs more than all of it goes alone.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = (bytes * self.copies / 1024 + 1).min(self.kib);
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        self.free.clone().acquire_many_owned(permits).await.ok()
    }
}

/// Handles a message, and reports to the server meanwhile that it is in progress.
async fn hold<H, F>(
    bus: Bus,
    pulled: Pulled,
    permit: OwnedSemaphorePermit,
    stop: CancellationToken,
    handle: H,
) where
    H: Fn(Pulled) -> F,
    F: Future<Output = ()>,
{
    let reply = pulled.message.reply.clone();
    // Boxed, because the future is large and would be moved several times.
    let mut handling = Box::pin(handle(pulled));
    let mut progress =
        tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    loop {
        tokio::select! {
            () = &mut handling => break,
            _ = progress.tick() => bus.send_ack(reply.as_ref(), AckKind::Progress).await,
            () = stop.cancelled() => {
                bus.return_message(reply.as_ref()).await;
                break;
            }
        }
    }
    drop(permit);
}

/// Returns the messages of a batch that have arrived and were not started.
async fn return_arrived(bus: &Bus, mut batch: Batch) {
    while let Some(Some(Ok(message))) = batch.next().now_or_never() {
        bus.return_message(message.reply.as_ref()).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn messages_wait_for_memory_and_one_that_needs_more_than_all_goes_alone() {
        let memory = PullMemory::new(1 << 20, 3);
        let first = memory.take(300 << 10).await;
        assert!(memory.take(300 << 10).now_or_never().is_none());
        drop(first);
        let large = memory.take(8 << 20).await;
        assert!(memory.clone().take(1).now_or_never().is_none());
        drop(large);
        assert!(memory.take(1).now_or_never().is_some());
    }
}
