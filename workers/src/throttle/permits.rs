//! Takes the concurrency permits of a call: a local one, and a shared one where the Provider sets
//! `maxInFlight`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidings_core::Reason;
use tidings_core::bus::BusError;
use tidings_core::bus::process_leases::HeldLease;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::Seat;

use super::ledger::Ledger;
use super::{Call, MOST_WAIT, Permit, Throttle, lease, limits};
use crate::attempt::{ParkRequest, Refusal};
use crate::throttle::local_permits::LocalPermit;
use crate::throttle::shared_permits::{PermitAnswer, PermitChange};

/// The pause between tries to take a shared permit; half of it is random.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Throttle {
    /// Takes a local permit and, where `maxInFlight` is set, a shared one.
    pub(super) async fn take_permits(&self, call: &Call<'_>) -> Result<Permit, Refusal> {
        let most = call.provider.max_in_flight;
        let local = self
            .local_permits
            .take(&call.destination, most, call.capacity)
            .await;
        let permit = |mut local: LocalPermit, shared| {
            local.start();
            Permit {
                local: Some(local),
                _shared: shared,
                probe: None,
            }
        };
        match (local, most) {
            (Ok(local), None) => Ok(permit(local, None)),
            (Err(wait), None) => Err(self.park_without_permit(call, self.bus.clock().after(wait))),
            (Err(_), Some(most)) => {
                Err(self.park_without_permit(call, self.retry_at(call, most).await?))
            }
            (Ok(local), Some(most)) => match self.take_shared(call, most).await? {
                Some(shared) => Ok(permit(local, Some(shared))),
                None => Err(self.park_without_permit(call, self.retry_at(call, most).await?)),
            },
        }
    }

    /// A shared permit, if one is free within [`MOST_WAIT`].
    async fn take_shared(
        &self,
        call: &Call<'_>,
        most: u32,
    ) -> Result<Option<SharedPermit>, BusError> {
        let key = shared_key(call);
        let holder = format!("{}/{:016x}", call.delivery.id, rand::random::<u64>());
        let lasts_ms = i64::try_from(lease(call.provider).as_millis()).unwrap_or(i64::MAX);
        let end = Instant::now() + MOST_WAIT;
        let mut is_first = true;
        while Instant::now() < end {
            // Created before the bus answers, so that the permit is given back even if this future
            // is dropped meanwhile.
            let permit = SharedPermit {
                ledger: self.shared_permits.clone(),
                key: key.clone(),
                holder: holder.clone(),
                since: Instant::now(),
                lease: self.leases.hold(&holder),
            };
            let take = PermitChange::Take {
                holder: holder.clone(),
                most,
                process: permit.lease.process().to_owned(),
                lasts_ms,
                is_first,
            };
            let PermitAnswer::Full(taken) = self.shared_permits.change(&key, take).await? else {
                return Ok(Some(permit));
            };
            is_first = false;
            permit.was_not_taken();
            if self.free_permits_of_the_dead(&key, taken).await? {
                continue;
            }
            tokio::time::sleep(jitter(RETRY_PAUSE)).await;
        }
        Ok(None)
    }

    /// Takes away the permits whose processes ended. Returns whether there were any.
    async fn free_permits_of_the_dead(
        &self,
        key: &str,
        taken: Vec<Seat>,
    ) -> Result<bool, BusError> {
        let mut ended = Vec::new();
        for Seat {
            holder, process, ..
        } in taken
        {
            if let Some(process) = &process
                && self.leases.has_ended(process, &holder).await?
            {
                ended.push(holder);
            }
        }
        let any = !ended.is_empty();
        if any {
            let free = PermitChange::Free(ended);
            self.shared_permits.change(key, free).await?;
        }
        Ok(any)
    }

    /// When to retry a delivery without a permit: after those of all workers that asked before.
    async fn retry_at(&self, call: &Call<'_>, most: u32) -> Result<Timestamp, BusError> {
        let change = PermitChange::RetryAt { most };
        Ok(
            match self
                .shared_permits
                .change(&shared_key(call), change)
                .await?
            {
                PermitAnswer::At(at_ms) => {
                    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::MAX)
                }
                PermitAnswer::Done | PermitAnswer::Full(_) => self.bus.clock().after(MOST_WAIT),
            },
        )
    }

    /// Parks a delivery without a permit, at most until it is too old.
    fn park_without_permit(&self, call: &Call<'_>, until: Timestamp) -> Refusal {
        let end = limits::end(call.planned_at, call.provider);
        if end.is_some_and(|end| end <= self.bus.clock().now()) {
            let detail = "too many calls to its destination were in flight until maxAge";
            return Refusal::GiveUp(Reason::Exhausted, detail.to_owned());
        }
        let until = end.map_or(until, |end| end.min(until));
        Refusal::Park(ParkRequest {
            until,
            may_be_woken: true,
            slot_ms: 0,
            why: NotAttempted::NoPermit,
        })
    }
}

/// A shared permit, given back when it is dropped.
pub(super) struct SharedPermit {
    ledger: Arc<Ledger<PermitChange>>,
    key: String,
    /// Empty if there is nothing to give back.
    holder: String,
    since: Instant,
    /// Renewed until the permit is given back.
    lease: HeldLease,
}

impl SharedPermit {
    fn was_not_taken(mut self) {
        self.holder.clear();
    }
}

impl Drop for SharedPermit {
    fn drop(&mut self) {
        if !self.holder.is_empty() {
            let holder = std::mem::take(&mut self.holder);
            let took_ms = self.since.elapsed().as_secs_f64() * 1e3;
            drop(
                self.ledger
                    .change(&self.key, PermitChange::Release { holder, took_ms }),
            );
        }
    }
}

fn shared_key(call: &Call<'_>) -> String {
    format!("seats.{}", call.destination.tokens())
}
