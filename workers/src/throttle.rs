//! Whether a delivery may call its destination now: circuit, rate limit, concurrency permits.
//!
//! ```text
//!            open, paused          reserved slot is far       all are taken
//!  delivery ─► circuit ───────────► rate limit ──────────────► permits ─► call ─► result
//!                 └─► park until woken └─► park until the slot    └─► park for a while
//! ```
//!
//! A destination that has to wait does not delay others. If nothing is limited and nothing fails,
//! no step needs the bus.
//!
//! A slot is the reserved send time of a delivery.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::bus::process_leases::ProcessLeases;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::circuit::{CallResult, CircuitDecision};
use tidings_core::model::jitter::jitter;
use tidings_core::model::time::{after, between, from_proto, proto_ms};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::ParkedScope;
use tidings_core::wire::circuit::State;
use tidings_core::{Delivery, Destination, ProtoTimestamp, Reason};
use tidings_rules::{RateLimit, ResolvedProvider};
use tokio_util::sync::CancellationToken;

pub mod breaker;
pub mod caller;
mod circuit_cache;
mod circuit_change;
pub mod ledger;
pub mod limits;
pub mod local_permits;
mod permits;
pub mod rate;
pub mod shared_permits;
mod takeover;
mod waker;

use crate::attempt::{ParkRequest, Refusal};
use breaker::{Breaker, Probe};
use ledger::Ledger;
use local_permits::{LocalPermit, LocalPermits, TypeCapacity};
use permits::SharedPermit;
use rate::{LONGEST_ASKED, SlotChange, grace};
use shared_permits::PermitChange;
use takeover::Takeover;
use waker::Waker;

/// A probe or a permit ends after this many calls and a margin, even if its process lives. That is
/// longer than an attempt. It ends with its process before.
const CALLS_OF_AN_ATTEMPT: u32 = 4;
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The longest that a delivery waits in memory for its slot or a shared permit.
const MOST_WAIT: Duration = Duration::from_secs(1);
/// A delivery waits in memory for its slot only while the worker can take this many more.
const SPARE_WHILE_WAITING: usize = 64;
/// A delivery that an open circuit parked is retried this long after the next probe, unless it is
/// woken earlier.
const RETRY_AFTER_PROBE: Duration = Duration::from_secs(240);
/// The wait during a probe, which ends soon.
const RETRY_DURING_PROBE: Duration = Duration::from_secs(8);
/// The wait while the Provider is paused.
const RETRY_WHILE_PAUSED: Duration = Duration::from_secs(4500);

/// Admits the calls of one process. All processes share rate limits, circuits and shared permits.
pub struct Throttle {
    bus: Bus,
    leases: Arc<ProcessLeases>,
    breaker: Arc<Breaker>,
    takeover: Arc<Takeover>,
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
    /// `None` for a probe, which must not wait.
    local: Option<LocalPermit>,
    _shared: Option<SharedPermit>,
    probe: Option<Probe>,
}

// === impl Throttle ===

impl Throttle {
    /// Opens the bucket and reads all circuits.
    ///
    /// # Errors
    /// The bucket `limits` is missing, or the bus did not answer.
    pub async fn open(
        bus: &Bus,
        leases: &Arc<ProcessLeases>,
        metrics: Metrics,
    ) -> Result<Self, BusError> {
        let waker = Waker::new(bus);
        let breaker = Arc::new(Breaker::open(bus, leases, metrics, waker.clone()).await?);
        Ok(Self {
            bus: bus.clone(),
            leases: leases.clone(),
            takeover: Takeover::new(bus, leases, breaker.clone(), waker),
            breaker,
            local_permits: LocalPermits::default(),
            slots: Ledger::open(bus, |_, _| {}).await?,
            shared_permits: Ledger::open(bus, |_, _| {}).await?,
        })
    }

    /// Follows changes of circuits by other workers and by users, and continues what dead workers
    /// left, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        tokio::join!(self.breaker.follow(stop.clone()), self.takeover.run(stop));
    }

    /// Asks to make a call. Waits for about two seconds at most, and for the bus.
    ///
    /// # Errors
    /// The call cannot be made now. The refusal says what to do with the delivery.
    pub async fn admit(&self, call: &Call<'_>) -> Result<Permit, Refusal> {
        // A slot that no call has used stays reserved for its delivery.
        let keeps = |slot_ms| move |refusal: Refusal| refusal.with_slot(slot_ms);
        let probe = self.pass_circuit(call).await;
        if let Some(probe) = probe.map_err(keeps(call.slot_ms))? {
            return Ok(probe);
        }
        let rates = limits::rates(call.provider);
        let mut slot_ms = call.slot_ms;
        if !rates.is_empty() {
            slot_ms = self.pass_rate_limit(call, rates).await?;
            // The circuit may have opened meanwhile.
            let probe = self.pass_circuit(call).await;
            if let Some(probe) = probe.map_err(keeps(slot_ms))? {
                return Ok(probe);
            }
        }
        self.take_permits(call).await.map_err(keeps(slot_ms))
    }

    /// Gives a permit back and records the result of the call, if a call was made.
    pub async fn end_call(&self, call: &Call<'_>, mut permit: Permit, result: Option<CallResult>) {
        let Some(result) = result else { return };
        if let Some(local) = &mut permit.local {
            local.answered(matches!(result, CallResult::Answered));
        }
        let (destination, retry) = (&call.destination, &call.provider.retry);
        if let CallResult::AskedToWait { wait, .. } = &result {
            let wait = (*wait).min(LONGEST_ASKED);
            let not_before = self.bus.clock().after(wait).as_millisecond();
            self.change_slots(call, SlotChange::NotBefore(not_before));
        }
        let parked = parked_scope(call);
        let Some(probe) = permit.probe else {
            return self.breaker.record(destination, parked, result, retry);
        };
        match probe.end(result).await {
            Ok(Some(wake_up)) => {
                self.change_slots(call, SlotChange::Answered);
                self.takeover.wake(destination, parked, wake_up);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                code = codes::PROBE_NOT_RECORDED,
                %error,
                "probe result not recorded; another probe follows"
            ),
        }
    }

    /// The age of the newest state that the attempt is for.
    fn age(&self, call: &Call<'_>) -> Duration {
        let planned = from_proto(call.planned_at);
        planned.map_or(Duration::ZERO, |planned| {
            between(planned, self.bus.clock().now())
        })
    }

    /// Changes the slots of the destination, if it has a rate limit. The caller does not wait for
    /// the bus: the next response repeats a change that is lost.
    fn change_slots(&self, call: &Call<'_>, change: SlotChange) {
        if !limits::rates(call.provider).is_empty() {
            drop(
                self.slots
                    .change(&limits::key(call.provider, &call.destination), change),
            );
        }
    }

    /// The permit of a probe if one is due; `None` if the circuit is closed.
    async fn pass_circuit(&self, call: &Call<'_>) -> Result<Option<Permit>, Refusal> {
        let destination = &call.destination;
        let mut decision = self.breaker.decision(destination);
        if decision == CircuitDecision::ProbeDue {
            let (lasts, retry) = (lease(call.provider), &call.provider.retry);
            let (parked, id) = (parked_scope(call), &call.delivery.id);
            let probe = self.breaker.probe(destination, parked, id, lasts, retry);
            if let Some(probe) = probe.await? {
                return Ok(Some(Permit {
                    local: None,
                    _shared: None,
                    probe: Some(probe),
                }));
            }
            decision = self.breaker.decision(destination);
        }
        Err(Refusal::Park(match decision {
            CircuitDecision::Closed => return Ok(None),
            CircuitDecision::Paused => ParkRequest {
                until: self.bus.clock().after(jitter(RETRY_WHILE_PAUSED)),
                may_be_woken: true,
                slot_ms: 0,
                why: NotAttempted::Paused,
            },
            // Another worker took the probe, and this worker's copy of the circuit is old.
            CircuitDecision::ProbeDue => self.park_blocked(call, self.bus.clock().now()).await?,
            CircuitDecision::Blocked(until) => self.park_blocked(call, until).await?,
        }))
    }

    /// Parks one delivery until the next probe is due, so that it becomes the probe. The others are
    /// parked until they are woken.
    async fn park_blocked(
        &self,
        call: &Call<'_>,
        probe_at: Timestamp,
    ) -> Result<ParkRequest, Refusal> {
        let circuit = self.breaker.circuit(&call.destination);
        let end = limits::end(call.planned_at, call.provider);
        let is_open = circuit.state() == State::Open;
        if end.is_some_and(|end| outlasts(is_open, probe_at, self.bus.clock().now(), end)) {
            let detail = format!("the circuit stays open until maxAge: {}", circuit.reason);
            return Err(Refusal::GiveUp(Reason::Exhausted, detail));
        }
        let park = |until| ParkRequest {
            until,
            may_be_woken: true,
            slot_ms: 0,
            why: NotAttempted::CircuitOpen,
        };
        if is_open {
            let is_next_probe = self
                .breaker
                .become_next_probe(&call.destination, call.park_key)
                .await;
            if matches!(is_next_probe, Ok(true)) {
                return Ok(park(probe_at));
            }
        }
        let until = match is_open {
            true => after(probe_at, jitter(RETRY_AFTER_PROBE)),
            false => self.bus.clock().after(jitter(RETRY_DURING_PROBE)),
        };
        Ok(park(end.map_or(until, |end| end.min(until))))
    }

    /// Waits for the delivery's slot and returns it. Reserves a slot if the delivery has none.
    /// Parks the delivery if the slot is too late to wait for it in memory.
    async fn pass_rate_limit(
        &self,
        call: &Call<'_>,
        rates: Arc<[RateLimit]>,
    ) -> Result<i64, Refusal> {
        let slot_ms = self.slot(call, rates).await?;
        let wait_ms = slot_ms - self.bus.clock().now().as_millisecond();
        let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default());
        if wait > MOST_WAIT || (!wait.is_zero() && call.spare < SPARE_WHILE_WAITING) {
            return Err(Refusal::Park(ParkRequest {
                until: Timestamp::from_millisecond(slot_ms).unwrap_or(Timestamp::MAX),
                may_be_woken: false,
                slot_ms,
                why: NotAttempted::RateLimited,
            }));
        }
        tokio::time::sleep(wait).await;
        Ok(slot_ms)
    }

    /// The delivery's slot; a new one if it has none, or is too late for it.
    async fn slot(&self, call: &Call<'_>, rates: Arc<[RateLimit]>) -> Result<i64, BusError> {
        let now_ms = self.bus.clock().now().as_millisecond();
        let grace_ms = i64::try_from(grace(&rates).as_millis()).unwrap_or(i64::MAX);
        if call.slot_ms > 0 && now_ms - call.slot_ms <= grace_ms {
            return Ok(call.slot_ms);
        }
        if let Some(slot_ms) = self.slot_of_key(call, now_ms).await? {
            return Ok(slot_ms);
        }
        let key = limits::key(call.provider, &call.destination);
        let planned_ms = proto_ms(call.planned_at);
        self.slots
            .change(&key, SlotChange::Reserve { planned_ms, rates })
            .await
    }

    /// The future slot of a parked delivery of the same state. All deliveries of the state share
    /// it, so that a newer one does not delay the state.
    async fn slot_of_key(&self, call: &Call<'_>, now_ms: i64) -> Result<Option<i64>, BusError> {
        if call.park_key == call.delivery.id {
            return Ok(None);
        }
        let slot_ms = self.bus.parked_slot(call.delivery, call.park_key).await?;
        Ok(Some(slot_ms).filter(|slot_ms| *slot_ms > now_ms))
    }
}

/// Which parked deliveries wait for the circuit of the call's destination.
fn parked_scope(call: &Call<'_>) -> ParkedScope {
    ParkedScope {
        // The channel in the Secret replaces those in deliveries.
        every_channel: call.provider.secret_channel().is_some(),
        no_channel: call.destination.includes(&call.provider.channel),
    }
}

/// The longest that a probe or a permit lasts: longer than an attempt can take.
fn lease(provider: &ResolvedProvider) -> Duration {
    provider.timeout * CALLS_OF_AN_ATTEMPT + LEASE_MARGIN
}

/// Whether a circuit stays open until the `end` of a delivery. A probe in progress can close it at
/// any time, not only at its latest end.
fn outlasts(is_open: bool, probe_at: Timestamp, now: Timestamp, end: Timestamp) -> bool {
    match is_open {
        true => probe_at >= end,
        false => now >= end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_near_its_end_waits_for_a_probe_in_progress() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let [now, end, late] = [at(10), at(13), at(65)];
        assert!(outlasts(true, late, now, end), "nobody probes before");
        assert!(!outlasts(true, at(12), now, end));
        assert!(!outlasts(false, late, now, end), "the probe may end soon");
        assert!(outlasts(false, late, end, end));
    }
}
