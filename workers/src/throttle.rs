//! Whether a delivery may call its destination now: circuit, slots, places, seats. One
//! destination's wait is no other's.
//!
//! ```text
//!            open, paused          later than in a second       none is free
//!  delivery ─► circuit ───────────► slot ──────────────────────► place, seat ─► call ─► what it has shown
//!                 └─► parked until woken └─► parked until then      └─► parked, to come back
//! ```
//!
//! Where nothing is limited and nothing fails, none of this asks the bus anything.

use std::sync::Arc;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use tidings_core::bus::{Bus, NotStored};
use tidings_core::model::circuit::{CallResult, CircuitDecision};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::circuit::State;
use tidings_core::{Delivery, Destination, Timestamp as ProtoTimestamp};
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

use breaker::{Breaker, Probe};
use ledger::Ledger;
use local_permits::{MOST_WAIT, Place, Places, Room};
use permits::SeatTaken;
use rate::{LONGEST_ASKED, SlotChange, grace};
use shared_permits::SeatChange;
use waker::Waker;

/// The calls of one attempt, and what a lease on them has beside their time.
const CALLS_OF_AN_ATTEMPT: u32 = 4;
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// What waits for a slot in hand leaves so many messages' room to others.
const LEAVES_SPARE: usize = 64;
/// What an open circuit holds up comes by itself so long after the next probe, somewhere between
/// these.
const BY_ITSELF_AFTER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));
/// While a probe is under way, its end is near.
const BESIDE_A_PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// What a pause holds up looks again somewhere between these, if nobody wakes it.
const PAUSED_FOR: (Duration, Duration) = (Duration::from_secs(2700), Duration::from_secs(4500));

/// Decides for one process, together with all others.
pub struct Throttle {
    bus: Bus,
    breaker: Breaker,
    waker: Arc<Waker>,
    places: Places,
    slots: Arc<Ledger<SlotChange>>,
    seats: Arc<Ledger<SeatChange>>,
}

/// A call that a delivery asks for.
pub struct Call<'a> {
    /// Where to.
    pub destination: Arc<Destination>,
    /// The Provider as it is now.
    pub provider: &'a ResolvedProvider,
    /// The delivery at hand.
    pub delivery: &'a Delivery,
    /// When it was planned, or the newest state that it is tried for.
    pub planned_at: Option<ProtoTimestamp>,
    /// Its own slot, in milliseconds since 1970, until a call has used it; else 0.
    pub slot_ms: i64,
    /// Where it would be parked.
    pub place: &'a str,
    /// How many messages of its kind this worker could still take.
    pub spare: usize,
    /// For the calls of its kind.
    pub room: &'a Room,
}

/// What to do with a delivery.
pub enum Leave {
    /// Call.
    Go(Pass),
    /// Park it.
    Park(Parking),
    /// It would wait beyond its age: the sentence says what for.
    GiveUp(String),
}

/// How a delivery is to be parked that was not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    /// Until then, by the server's clock.
    pub until: Timestamp,
    /// It goes earlier if its destination is called again.
    pub may_be_woken: bool,
    /// The delivery's own slot, in milliseconds since 1970; 0 where it has none.
    pub slot_ms: i64,
    /// Why it is not attempted now.
    pub why: NotAttempted,
}

/// Leave to make one call, until it is dropped.
pub struct Pass {
    /// Only what must not be waited for has none: a probe.
    _place: Option<Place>,
    _seat: Option<SeatTaken>,
    probe: Option<Probe>,
}

// === impl Throttle ===

impl Throttle {
    /// Reads what is known of all destinations.
    ///
    /// # Errors
    /// The bucket `limits` is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus, metrics: Metrics) -> Result<Self, NotStored> {
        let waker = Waker::new(bus);
        Ok(Self {
            bus: bus.clone(),
            breaker: Breaker::open(bus, metrics, waker.clone()).await?,
            waker,
            places: Places::default(),
            slots: Ledger::open(bus, |_, _| {}).await?,
            seats: Ledger::open(bus, |_, _| {}).await?,
        })
    }

    /// Follows what others do to circuits, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.breaker.follow(stop).await;
    }

    /// Asks for leave to call. It takes a second at most, and what the bus takes.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn ask(&self, call: &Call<'_>) -> Result<Leave, NotStored> {
        let mut slot_ms = call.slot_ms;
        // A slot that no call has used stays its delivery's: who comes back soon enough need not
        // have another.
        Ok(match self.pass_all(call, &mut slot_ms).await? {
            Leave::Park(parking) => Leave::Park(Parking { slot_ms, ..parking }),
            leave => leave,
        })
    }

    /// Notes what a call has shown of its destination; nothing where no call was made.
    pub async fn ended(&self, call: &Call<'_>, pass: Pass, seen: Option<CallResult>) {
        let (destination, retry) = (&call.destination, &call.provider.retry);
        if let Some(CallResult::AskedToWait(wait, _)) = &seen {
            let wait = (*wait).min(retry.max_age).min(LONGEST_ASKED);
            self.change_slots(
                call,
                SlotChange::NotBefore(self.bus.clock().after(wait).as_millisecond()),
            );
        }
        let Some(probe) = pass.probe else {
            if let Some(seen) = seen {
                self.breaker.saw(destination, seen, retry);
            }
            return;
        };
        let Some(seen) = seen else { return };
        let is_answered = seen == CallResult::Answered;
        match probe.ended(seen).await {
            Ok(true) if is_answered => {
                self.change_slots(call, SlotChange::Answered);
                self.waker
                    .wake(destination.clone(), call.provider.channel.clone());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(code = codes::PROBE_NOT_RECORDED, %error, "probe result not recorded; the probe expires")
            }
        }
    }

    async fn pass_all(&self, call: &Call<'_>, slot_ms: &mut i64) -> Result<Leave, NotStored> {
        if let Some(leave) = self.pass_circuit(call).await? {
            return Ok(leave);
        }
        let rates = limits::rates(call.provider);
        if !rates.is_empty() {
            if let Some(parking) = self.pass_slot(call, rates, slot_ms).await? {
                return Ok(Leave::Park(parking));
            }
            // It may have opened meanwhile.
            if let Some(leave) = self.pass_circuit(call).await? {
                return Ok(leave);
            }
        }
        self.take_place(call).await
    }

    /// Only where there are slots. Nobody waits for it; what gets lost is noted with the next
    /// answer.
    fn change_slots(&self, call: &Call<'_>, change: SlotChange) {
        if !limits::rates(call.provider).is_empty() {
            drop(
                self.slots
                    .change(&limits::key(call.provider, &call.destination), change),
            );
        }
    }

    /// Nothing where the circuit is closed.
    async fn pass_circuit(&self, call: &Call<'_>) -> Result<Option<Leave>, NotStored> {
        let destination = &call.destination;
        let mut standing = self.breaker.standing(destination);
        if standing == CircuitDecision::ProbeDue {
            let holder = format!("{}/{:016x}", call.delivery.id, rand::random::<u64>());
            if let Some(probe) = self
                .breaker
                .probe(
                    destination,
                    holder,
                    lease(call.provider),
                    &call.provider.retry,
                )
                .await?
            {
                return Ok(Some(Leave::Go(Pass {
                    _place: None,
                    _seat: None,
                    probe: Some(probe),
                })));
            }
            standing = self.breaker.standing(destination);
        }
        match standing {
            CircuitDecision::Closed => Ok(None),
            CircuitDecision::Paused => {
                let until = self.bus.clock().after(between(PAUSED_FOR));
                Ok(Some(Leave::Park(Parking {
                    until,
                    may_be_woken: true,
                    slot_ms: 0,
                    why: NotAttempted::Paused,
                })))
            }
            // Somebody was quicker, whom we have not heard of yet.
            CircuitDecision::ProbeDue => Ok(Some(self.blocked(call, self.bus.clock().now()).await)),
            CircuitDecision::Blocked(until) => Ok(Some(self.blocked(call, until).await)),
        }
    }

    /// One of those that are held up is parked until the next probe and makes it. The others wait
    /// until they are woken.
    async fn blocked(&self, call: &Call<'_>, until: Timestamp) -> Leave {
        let circuit = self.breaker.circuit(&call.destination);
        let end = limits::end(call.planned_at.as_ref(), call.provider);
        if end.is_some_and(|end| until >= end) {
            return Leave::GiveUp(format!("not called any more: {}", circuit.reason));
        }
        let parking = |until| Parking {
            until,
            may_be_woken: true,
            slot_ms: 0,
            why: NotAttempted::CircuitOpen,
        };
        let is_open = circuit.state() == State::Open;
        if is_open
            && matches!(
                self.breaker
                    .wait_to_probe(&call.destination, call.place)
                    .await,
                Ok(true)
            )
        {
            return Leave::Park(parking(until));
        }
        let by_itself = if is_open {
            until
                .checked_add(between(BY_ITSELF_AFTER))
                .unwrap_or(Timestamp::MAX)
        } else {
            self.bus.clock().after(between(BESIDE_A_PROBE))
        };
        Leave::Park(parking(end.map_or(by_itself, |end| end.min(by_itself))))
    }

    /// Nothing where the delivery's slot, which may be a new one, has come.
    async fn pass_slot(
        &self,
        call: &Call<'_>,
        rates: Arc<[RateLimit]>,
        slot_ms: &mut i64,
    ) -> Result<Option<Parking>, NotStored> {
        let now_ms = self.bus.clock().now().as_millisecond();
        let grace_ms = i64::try_from(grace(&rates).as_millis()).unwrap_or(i64::MAX);
        let is_its_own = *slot_ms > 0 && now_ms - *slot_ms <= grace_ms;
        if !is_its_own {
            *slot_ms = match self.slot_of_key(call, now_ms).await? {
                Some(slot_ms) => slot_ms,
                None => self.reserve(call, rates).await?,
            };
        }
        let wait = Duration::from_millis(
            u64::try_from(*slot_ms - self.bus.clock().now().as_millisecond()).unwrap_or_default(),
        );
        if wait > MOST_WAIT || (!wait.is_zero() && call.spare < LEAVES_SPARE) {
            let until = Timestamp::from_millisecond(*slot_ms).unwrap_or(Timestamp::MAX);
            return Ok(Some(Parking {
                until,
                may_be_woken: false,
                slot_ms: *slot_ms,
                why: NotAttempted::RateLimited,
            }));
        }
        tokio::time::sleep(wait).await;
        Ok(None)
    }

    async fn reserve(&self, call: &Call<'_>, rates: Arc<[RateLimit]>) -> Result<i64, NotStored> {
        let planned_ms = limits::planned_ms(call.planned_at.as_ref());
        self.slots
            .change(
                &limits::key(call.provider, &call.destination),
                SlotChange::Reserve { planned_ms, rates },
            )
            .await
    }

    /// The slot that a state's key waits for already: one is enough for all that is asked of it
    /// meanwhile, and what comes later must not push it back.
    async fn slot_of_key(&self, call: &Call<'_>, now_ms: i64) -> Result<Option<i64>, NotStored> {
        if call.place == call.delivery.id {
            return Ok(None);
        }
        let slot_ms = self.bus.parked_slot(call.delivery, call.place).await?;
        Ok(Some(slot_ms).filter(|slot_ms| *slot_ms > now_ms))
    }
}

/// Longer than an attempt can take.
fn lease(provider: &ResolvedProvider) -> Duration {
    provider.timeout * CALLS_OF_AN_ATTEMPT + LEASE_MARGIN
}

fn between((least, most): (Duration, Duration)) -> Duration {
    least + (most - least).mul_f64(rand::random())
}
