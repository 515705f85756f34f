//! Whether a delivery may call its destination now: circuit, rate limit, concurrency permits.
//!
//! ```text
//!            open, paused          reserved slot is far       all are taken
//!  delivery ─► circuit ───────────► rate limit ──────────────► permits ─► call ─► result
//!                 └─► park until woken └─► park until the slot    └─► park for a while
//! ```
//!
//! A destination that has to wait delays no other one. Where nothing is limited and nothing fails,
//! none of this asks the bus.

use std::sync::Arc;
use std::time::Duration;
use tidings_core::model::jitter::jitter;
use tidings_core::model::time::{after, proto_ms};
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::circuit::{CallResult, CircuitDecision};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::circuit::State;
use tidings_core::{Delivery, Destination, ProtoTimestamp, Reason};
use tidings_rules::{RateLimit, ResolvedProvider};
use tokio_util::sync::CancellationToken;

pub mod breaker;
pub mod caller;
mod circuit_cache;
pub mod ledger;
pub mod limits;
pub mod local_permits;
mod permits;
pub mod rate;
pub mod shared_permits;
mod waker;

use crate::attempt::{ParkRequest, Refusal};
use breaker::{Breaker, Probe};
use ledger::Ledger;
use local_permits::{LocalPermit, LocalPermits, MOST_WAIT, TypeCapacity};
use permits::SharedPermit;
use rate::{LONGEST_ASKED, SlotChange, grace};
use shared_permits::PermitChange;
use waker::Waker;

/// A lease must outlive an attempt: so many calls, and a margin.
const CALLS_OF_AN_ATTEMPT: u32 = 4;
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// A message waits in memory for its slot only while the worker can take this many more.
const SPARE_WHILE_WAITING: usize = 64;
/// Deliveries that an open circuit holds back return by themselves this long after the next probe.
const RETURN_AFTER_PROBE: Duration = Duration::from_secs(300);
/// The same while a probe is under way: it ends soon.
const RETURN_DURING_PROBE: Duration = Duration::from_secs(8);
/// The same while the Provider is paused.
const RETURN_WHILE_PAUSED: Duration = Duration::from_secs(4500);

/// Admits the calls of one process, together with all other processes.
pub struct Throttle {
    bus: Bus,
    breaker: Breaker,
    waker: Arc<Waker>,
    local_permits: LocalPermits,
    slots: Arc<Ledger<SlotChange>>,
    shared_permits: Arc<Ledger<PermitChange>>,
}

/// A call that a delivery asks for.
pub struct Call<'a> {
    /// The destination to call.
    pub destination: Arc<Destination>,
    /// The Provider with its present settings.
    pub provider: &'a ResolvedProvider,
    /// The delivery that is being attempted.
    pub delivery: &'a Delivery,
    /// When the delivery was planned, or the newest state that the attempt is for.
    pub planned_at: Option<ProtoTimestamp>,
    /// The delivery's reserved slot, in milliseconds since 1970; 0 once a call has used it.
    pub slot_ms: i64,
    /// The key under which the delivery would be parked.
    pub park_key: &'a str,
    /// How many more messages of the type this worker could take.
    pub spare: usize,
    /// The capacity that all destinations of the type share in this worker.
    pub capacity: &'a TypeCapacity,
}

/// Allows one call, until it is dropped.
pub struct Permit {
    /// A probe has none, since it must not wait.
    _local: Option<LocalPermit>,
    _shared: Option<SharedPermit>,
    probe: Option<Probe>,
}

// === impl Throttle ===

impl Throttle {
    /// Opens the bucket and reads all circuits.
    ///
    /// # Errors
    /// The bucket `limits` is missing, or the bus did not answer.
    pub async fn open(bus: &Bus, metrics: Metrics) -> Result<Self, BusError> {
        let waker = Waker::new(bus);
        Ok(Self {
            bus: bus.clone(),
            breaker: Breaker::open(bus, metrics, waker.clone()).await?,
            waker,
            local_permits: LocalPermits::default(),
            slots: Ledger::open(bus, |_, _| {}).await?,
            shared_permits: Ledger::open(bus, |_, _| {}).await?,
        })
    }

    /// Follows how others change circuits, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.breaker.follow(stop).await;
    }

    /// Asks to make a call. This takes a second at most, and the time of the bus.
    ///
    /// # Errors
    /// The destination must not be called now, and what to do with the delivery instead.
    pub async fn admit(&self, call: &Call<'_>) -> Result<Permit, Refusal> {
        let mut slot_ms = call.slot_ms;
        self.admit_with_slot(call, &mut slot_ms)
            .await
            .map_err(|refusal| match refusal {
                // A slot that no call has used stays reserved for its delivery.
                Refusal::Park(request) => Refusal::Park(ParkRequest { slot_ms, ..request }),
                refusal => refusal,
            })
    }

    /// Gives a permit back and records what the call showed; nothing where no call was made.
    pub async fn end_call(&self, call: &Call<'_>, permit: Permit, result: Option<CallResult>) {
        let Some(result) = result else { return };
        let (destination, retry) = (&call.destination, &call.provider.retry);
        if let CallResult::AskedToWait(wait, _) = &result {
            let wait = (*wait).min(retry.max_age).min(LONGEST_ASKED);
            let not_before = self.bus.clock().after(wait).as_millisecond();
            self.change_slots(call, SlotChange::NotBefore(not_before));
        }
        let Some(probe) = permit.probe else {
            return self.breaker.record(destination, result, retry);
        };
        let is_answered = result == CallResult::Answered;
        match probe.end(result).await {
            Ok(true) if is_answered => {
                self.change_slots(call, SlotChange::Answered);
                self.waker
                    .wake(destination.clone(), call.provider.channel.clone());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                code = codes::PROBE_NOT_RECORDED,
                %error,
                "probe result not recorded; the probe expires"
            ),
        }
    }

    async fn admit_with_slot(&self, call: &Call<'_>, slot_ms: &mut i64) -> Result<Permit, Refusal> {
        if let Some(probe) = self.pass_circuit(call).await? {
            return Ok(probe);
        }
        let rates = limits::rates(call.provider);
        if !rates.is_empty() {
            self.pass_rate_limit(call, rates, slot_ms).await?;
            // The circuit may have opened meanwhile.
            if let Some(probe) = self.pass_circuit(call).await? {
                return Ok(probe);
            }
        }
        self.take_permits(call).await
    }

    /// Only where there is a rate limit. Nobody waits for it: a change that is lost is made with
    /// the next answer.
    fn change_slots(&self, call: &Call<'_>, change: SlotChange) {
        if !limits::rates(call.provider).is_empty() {
            drop(
                self.slots
                    .change(&limits::key(call.provider, &call.destination), change),
            );
        }
    }

    /// A probe where one is due; nothing where the circuit is closed.
    async fn pass_circuit(&self, call: &Call<'_>) -> Result<Option<Permit>, Refusal> {
        let destination = &call.destination;
        let mut decision = self.breaker.decision(destination);
        if decision == CircuitDecision::ProbeDue {
            let holder = format!("{}/{:016x}", call.delivery.id, rand::random::<u64>());
            let (lease, retry) = (lease(call.provider), &call.provider.retry);
            if let Some(probe) = self
                .breaker
                .probe(destination, holder, lease, retry)
                .await?
            {
                return Ok(Some(Permit {
                    _local: None,
                    _shared: None,
                    probe: Some(probe),
                }));
            }
            decision = self.breaker.decision(destination);
        }
        Err(Refusal::Park(match decision {
            CircuitDecision::Closed => return Ok(None),
            CircuitDecision::Paused => ParkRequest {
                until: self.bus.clock().after(jitter(RETURN_WHILE_PAUSED)),
                may_be_woken: true,
                slot_ms: 0,
                why: NotAttempted::Paused,
            },
            // Another worker took the probe; the watch has not told us yet.
            CircuitDecision::ProbeDue => self.park_blocked(call, self.bus.clock().now()).await?,
            CircuitDecision::Blocked(until) => self.park_blocked(call, until).await?,
        }))
    }

    /// One delivery is parked until the next probe is due, and makes it. The others are parked
    /// until they are woken.
    async fn park_blocked(
        &self,
        call: &Call<'_>,
        probe_at: Timestamp,
    ) -> Result<ParkRequest, Refusal> {
        let circuit = self.breaker.circuit(&call.destination);
        let end = limits::end(call.planned_at, call.provider);
        if end.is_some_and(|end| probe_at >= end) {
            let detail = format!("the circuit stays open until maxAge: {}", circuit.reason);
            return Err(Refusal::GiveUp(Reason::Exhausted, detail));
        }
        let park = |until| ParkRequest {
            until,
            may_be_woken: true,
            slot_ms: 0,
            why: NotAttempted::CircuitOpen,
        };
        let is_open = circuit.state() == State::Open;
        if is_open {
            let waits = self
                .breaker
                .wait_to_probe(&call.destination, call.park_key)
                .await;
            if matches!(waits, Ok(true)) {
                return Ok(park(probe_at));
            }
        }
        let until = match is_open {
            true => after(probe_at, jitter(RETURN_AFTER_PROBE)),
            false => self.bus.clock().after(jitter(RETURN_DURING_PROBE)),
        };
        Ok(park(end.map_or(until, |end| end.min(until))))
    }

    /// Waits for the delivery's reserved slot, or reserves one; parks the delivery where the slot
    /// is too far away to wait for it in memory.
    async fn pass_rate_limit(
        &self,
        call: &Call<'_>,
        rates: Arc<[RateLimit]>,
        slot_ms: &mut i64,
    ) -> Result<(), Refusal> {
        let now_ms = self.bus.clock().now().as_millisecond();
        let grace_ms = i64::try_from(grace(&rates).as_millis()).unwrap_or(i64::MAX);
        let has_slot = *slot_ms > 0 && now_ms - *slot_ms <= grace_ms;
        if !has_slot {
            *slot_ms = match self.slot_of_key(call, now_ms).await? {
                Some(slot_ms) => slot_ms,
                None => self.reserve(call, rates).await?,
            };
        }
        let wait_ms = *slot_ms - self.bus.clock().now().as_millisecond();
        let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default());
        if wait > MOST_WAIT || (!wait.is_zero() && call.spare < SPARE_WHILE_WAITING) {
            return Err(Refusal::Park(ParkRequest {
                until: Timestamp::from_millisecond(*slot_ms).unwrap_or(Timestamp::MAX),
                may_be_woken: false,
                slot_ms: *slot_ms,
                why: NotAttempted::RateLimited,
            }));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn reserve(&self, call: &Call<'_>, rates: Arc<[RateLimit]>) -> Result<i64, BusError> {
        let key = limits::key(call.provider, &call.destination);
        let planned_ms = proto_ms(call.planned_at);
        self.slots
            .change(&key, SlotChange::Reserve { planned_ms, rates })
            .await
    }

    /// The slot that a parked delivery of the same state has reserved. One slot is enough for all
    /// deliveries that ask meanwhile, and a later one must not push it back.
    async fn slot_of_key(&self, call: &Call<'_>, now_ms: i64) -> Result<Option<i64>, BusError> {
        if call.park_key == call.delivery.id {
            return Ok(None);
        }
        let slot_ms = self.bus.parked_slot(call.delivery, call.park_key).await?;
        Ok(Some(slot_ms).filter(|slot_ms| *slot_ms > now_ms))
    }
}

/// Longer than an attempt can take.
fn lease(provider: &ResolvedProvider) -> Duration {
    provider.timeout * CALLS_OF_AN_ATTEMPT + LEASE_MARGIN
}
