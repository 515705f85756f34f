//! Forwards events as CloudEvents: pulls each event, sends it to the target until the target takes
//! it, and then acknowledges it.

pub mod answer;
pub mod consumer;
pub mod headers;
pub mod position;
pub mod target;

use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use parking_lot::Mutex;
use tidings_core::Event;
use tidings_core::bus::Bus;
use tidings_core::bus::pull::{PullMemory, Pulled, Puller, Stop};
use tidings_core::bus::streams;
use tidings_core::model::cloud_event::cloud_event;
use tidings_core::model::jitter::jitter;
use tidings_core::model::stored_event;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tidings_core::runtime::health::Check;
use tidings_core::runtime::log_pace::LogPace;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::BridgeOutcome;

use answer::{Next, Tries};
use target::Target;

/// The most bytes of one pull.
const MAX_PULL_BYTES: usize = 4 << 20;
/// How much of its message's size an event needs: the message, the event, its JSON as a value and
/// as text, which escapes can make larger.
const COPIES: usize = 8;

/// A bridge.
pub struct Bridge {
    /// The bus.
    pub bus: Bus,
    /// Where the events go.
    pub target: Target,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Succeeds with every event that the target takes.
    pub check: Check,
    /// Decides which failures are logged.
    pub pace: Mutex<LogPace>,
    /// Ends the bridge.
    pub stop: Stop,
}

/// What a bridge needs to pull.
pub struct Pulling {
    /// The durable consumer.
    pub consumer: pull::Config,
    /// The number of events that are sent at the same time.
    pub in_flight: usize,
    /// Memory for events, in bytes.
    pub memory: u64,
    /// Succeeds with every pull that the server answers.
    pub check: Check,
}

impl Bridge {
    /// Forwards events until it is stopped.
    ///
    /// # Guarantees
    /// At least once: an event is acknowledged after the target took it. Events can arrive in
    /// another order if several are in flight.
    pub async fn run(self: Arc<Self>, pulling: Pulling) {
        let puller = Puller {
            bus: self.bus.clone(),
            stream: streams::EVENTS,
            consumer: pulling.consumer,
            capacity: pulling.in_flight,
            bytes: MAX_PULL_BYTES,
            memory: PullMemory::new(pulling.memory, COPIES),
            check: pulling.check,
            restores: true,
        };
        let stop = self.stop.clone();
        let handle = move |pulled| {
            let bridge = self.clone();
            async move { bridge.handle(pulled).await }
        };
        puller.run(stop, || true, handle).await;
    }

    async fn handle(&self, pulled: Pulled) {
        self.metrics.bridge_events_in_flight.inc();
        let message = &pulled.message;
        let outcome = match stored_event::read(&message.subject, &message.payload) {
            Ok(event) => self.forward(&event, pulled.sequence).await,
            Err(refused) => {
                tracing::error!(
                    code = codes::EVENT_UNDECODABLE,
                    sequence = pulled.sequence,
                    error = %refused,
                    "event is dropped"
                );
                Some(BridgeOutcome::Undecodable)
            }
        };
        self.metrics.bridge_events_in_flight.dec();
        let reply = pulled.message.reply.as_ref();
        let Some(outcome) = outcome else {
            return self.bus.return_message(reply).await;
        };
        failpoint::reach("bridge:sent");
        self.bus.send_ack(reply, AckKind::Ack).await;
        failpoint::reach("bridge:acknowledged");
        self.metrics
            .bridge_events_total
            .get_or_create(&outcome)
            .inc();
    }

    /// Sends an event until the target takes or finally rejects it. `None` if the bridge is stopped
    /// before.
    async fn forward(&self, event: &Event, sequence: u64) -> Option<BridgeOutcome> {
        let Some(body) = cloud_event(event) else {
            return Some(BridgeOutcome::Undecodable);
        };
        let body = Bytes::from(body.to_string());
        let mut tries = Tries::default();
        loop {
            failpoint::reach("bridge:sending");
            let answer = self.target.send(event, body.clone()).await;
            match tries.next(&answer) {
                Next::Finish(outcome) => {
                    self.finished(event, sequence, outcome, answer.why());
                    return Some(outcome);
                }
                Next::Wait(pause) => {
                    self.failed(event, answer.why());
                    let pause = tokio::time::sleep(jitter(pause));
                    self.stop.pulling.run_until_cancelled(pause).await?;
                }
            }
        }
    }

    fn finished(&self, event: &Event, sequence: u64, outcome: BridgeOutcome, why: &str) {
        // A target that rejects an event works.
        self.check.succeed();
        if outcome == BridgeOutcome::Rejected {
            tracing::error!(
                code = codes::BRIDGE_REJECTED,
                event.id,
                sequence,
                error = why,
                "event rejected and not sent again"
            );
            return;
        }
        self.pace.lock().reset();
        tracing::debug!(
            code = codes::EVENT_FORWARDED,
            event.id,
            %outcome,
            "event forwarded"
        );
    }

    fn failed(&self, event: &Event, why: &str) {
        self.metrics.bridge_retries_total.inc();
        self.check.fail(why);
        if self.pace.lock().is_due(why, Instant::now()) {
            tracing::warn!(
                code = codes::BRIDGE_RETRYING,
                event.id,
                error = why,
                "event not forwarded, retrying"
            );
        }
    }
}
