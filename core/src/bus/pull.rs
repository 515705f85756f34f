//! Pulling: a role takes only what it can start now, and keeps alive what it holds.

use crate::runtime::codes::log as codes;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull::{self, Batch};
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::runtime::health::Check;

mod consumer;

use consumer::{Seen, begins_after};

/// A pull that brings nothing ends after this long, so that a dead one can't go unnoticed for
/// longer.
const PULL_FOR: Duration = Duration::from_secs(10);
/// What is held tells the server so this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A pull waits this long for places to become free together; small pulls cost as much as large
/// ones.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// The pause after the first trouble; it doubles with each that follows at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after trouble.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Takes messages of one consumer, so many at a time.
pub struct Puller {
    /// The bus.
    pub bus: Bus,
    /// The stream.
    pub stream: &'static str,
    /// The consumer; made where it is missing.
    pub consumer: pull::Config,
    /// So many messages are held at most.
    pub capacity: usize,
    /// Succeeds with every pull that the server answers.
    pub check: Check,
}

/// A message in our hands.
pub struct Pulled {
    /// The message itself.
    pub message: async_nats::jetstream::Message,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The number of this hand-out among all of the consumer, and of the sequences that it was
    /// made to begin after.
    pub consumer_sequence: u64,
    /// How often it has been handed out, this time included.
    pub delivered: i64,
}

/// When to stop.
#[derive(Clone)]
pub struct Stop {
    /// Nothing more is pulled.
    pub pulling: CancellationToken,
    /// What is still held is handed back.
    pub holding: CancellationToken,
}

impl Puller {
    /// Pulls and has each message handled in a task of its own, until `stop.pulling`; then waits
    /// for what it holds. `may_pull` is asked before each pull.
    ///
    /// # Guarantees
    /// A held message does not come again while its handling goes on, unless this process or the
    /// connection stalls for longer than the consumer waits. What is not handled when
    /// `stop.holding` is cancelled is handed back at once.
    pub async fn run<H, F>(self, stop: Stop, may_pull: impl Fn() -> bool, handle: H)
    where
        H: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.capacity));
        let held = TaskTracker::new();
        let mut pause = FIRST_PAUSE;
        while !stop.pulling.is_cancelled() {
            let began = Instant::now();
            match self
                .pull_until_trouble(&stop, &may_pull, &places, &held, &handle)
                .await
            {
                Ok(()) => break,
                Err(trouble) => {
                    tracing::warn!(code = codes::PULL_FAILED, stream = self.stream, consumer = self.name(), %trouble, "pull failed, retrying");
                    self.check.fail(trouble);
                }
            }
            if began.elapsed() > 2 * MOST_PAUSE {
                pause = FIRST_PAUSE;
            }
            let _ = stop
                .pulling
                .run_until_cancelled(tokio::time::sleep(
                    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0),
                ))
                .await;
            pause = (pause * 2).min(MOST_PAUSE);
        }
        held.close();
        held.wait().await;
    }

    async fn pull_until_trouble<H, F>(
        &self,
        stop: &Stop,
        may_pull: &impl Fn() -> bool,
        places: &Arc<Semaphore>,
        held: &TaskTracker,
        handle: &H,
    ) -> Result<(), String>
    where
        H: Fn(Pulled) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(consumer) = stop.pulling.run_until_cancelled(self.consumer()).await else {
            return Ok(());
        };
        let consumer = consumer?;
        let begins_after = begins_after(&consumer);
        let mut seen = Seen::at(consumer.cached_info());
        if seen == Seen::Nothing {
            self.check.succeed();
        }
        loop {
            if !may_pull() {
                self.check.succeed();
                if stop
                    .pulling
                    .run_until_cancelled(tokio::time::sleep(Duration::from_millis(500)))
                    .await
                    .is_none()
                {
                    return Ok(());
                }
                continue;
            }
            let Some(gathered) = stop
                .pulling
                .run_until_cancelled(tokio::time::timeout(PULL_FOR, self.gather(places)))
                .await
            else {
                return Ok(());
            };
            // Who holds all that it may is not dead: the next pull comes with the next free place.
            let Ok(mut free) = gathered else {
                self.check.succeed();
                continue;
            };
            let pull = consumer
                .batch()
                .max_messages(free.num_permits())
                .expires(PULL_FOR);
            let mut batch = pull.messages().await.map_err(|error| error.to_string())?;
            let mut is_empty = true;
            loop {
                let Some(next) = stop.pulling.run_until_cancelled(batch.next()).await else {
                    return_arrived(&self.bus, batch).await;
                    return Ok(());
                };
                let Some(message) = next else { break };
                is_empty = false;
                let pulled =
                    Pulled::new(message.map_err(|error| error.to_string())?, begins_after)?;
                self.check.succeed();
                let Some(place) = free.split(1) else { break };
                held.spawn(hold(
                    self.bus.clone(),
                    pulled,
                    place,
                    stop.holding.clone(),
                    handle.clone(),
                ));
                if free.num_permits() == 0 {
                    break;
                }
            }
            if !self.bus.is_connected() {
                return Err("not connected".to_owned());
            }
            seen = if is_empty {
                self.look(&consumer, seen).await?
            } else {
                Seen::Nothing
            };
            if seen != Seen::Waiting {
                self.check.succeed();
            }
        }
    }

    /// All places that are free, once there is a good handful of them or a moment has passed.
    async fn gather(&self, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        let handful = u32::try_from((self.capacity / 4).max(1)).unwrap_or(u32::MAX);
        let enough =
            tokio::time::timeout(GATHER_FOR, places.clone().acquire_many_owned(handful)).await;
        let acquired = match enough {
            Ok(acquired) => acquired,
            Err(_) => places.clone().acquire_owned().await,
        };
        let mut free = acquired.expect("the semaphore is never closed");
        let rest = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = places.clone().try_acquire_many_owned(rest) {
            free.merge(more);
        }
        free
    }
}

impl Pulled {
    fn new(message: async_nats::jetstream::Message, begins_after: u64) -> Result<Self, String> {
        let info = message.info().map_err(|error| error.to_string())?;
        let (sequence, consumer_sequence, delivered) = (
            info.stream_sequence,
            info.consumer_sequence + begins_after,
            info.delivered,
        );
        Ok(Self {
            message,
            sequence,
            consumer_sequence,
            delivered,
        })
    }
}

/// Handles a message while the server is told that it is in hand.
async fn hold<H, F>(
    bus: Bus,
    pulled: Pulled,
    place: OwnedSemaphorePermit,
    return_message: CancellationToken,
    handle: H,
) where
    H: Fn(Pulled) -> F,
    F: Future<Output = ()>,
{
    let reply = pulled.message.reply.clone();
    // Boxed: what handles a message is large, and would be moved with each of the layers around it.
    let mut handling = Box::pin(handle(pulled));
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    loop {
        tokio::select! {
            () = &mut handling => break,
            _ = alive.tick() => bus.send_ack(reply.as_ref(), AckKind::Progress).await,
            () = return_message.cancelled() => {
                bus.return_message(reply.as_ref()).await;
                break;
            }
        }
    }
    drop(place);
}

/// What had arrived already when we stopped goes back at once.
async fn return_arrived(bus: &Bus, mut batch: Batch) {
    while let Some(Some(Ok(message))) = batch.next().now_or_never() {
        bus.return_message(message.reply.as_ref()).await;
    }
}
