//! Places and seats on the bus: a call takes one of each where the Provider says how many there
//! are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidings_core::bus::NotStored;
use tidings_core::runtime::metrics::labels::NotAttempted;

use super::ledger::Ledger;
use super::{Call, Leave, Parking, Pass, Throttle, lease, limits};
use crate::throttle::local_permits::MOST_WAIT;
use crate::throttle::shared_permits::{SeatAnswer, SeatChange};

/// Between tries to get a seat, half of it at least.
const SEAT_PAUSE: Duration = Duration::from_millis(50);

impl Throttle {
    /// A place in this process and, where the Provider says how many there are, a seat among all.
    pub(super) async fn take_place(&self, call: &Call<'_>) -> Result<Leave, NotStored> {
        let most = call.provider.max_in_flight;
        let place = self.places.take(&call.destination, most, call.room).await;
        let (mut place, most) = match (place, most) {
            (Ok(place), None) => {
                return Ok(Leave::Go(Pass {
                    _place: Some(place),
                    _seat: None,
                    probe: None,
                }));
            }
            (Err(wait), None) => return Ok(self.crowded(call, self.bus.clock().after(wait))),
            (Err(_), Some(most)) => {
                return Ok(self.crowded(call, self.come_back(call, most).await?));
            }
            (Ok(place), Some(most)) => (place, most),
        };
        Ok(match self.take_seat(call, most).await? {
            Some(seat) => {
                place.begin();
                Leave::Go(Pass {
                    _place: Some(place),
                    _seat: Some(seat),
                    probe: None,
                })
            }
            None => self.crowded(call, self.come_back(call, most).await?),
        })
    }

    /// A seat, if one is free within a moment.
    async fn take_seat(&self, call: &Call<'_>, most: u32) -> Result<Option<SeatTaken>, NotStored> {
        let key = seats_of(call);
        let holder = format!("{}/{:016x}", call.delivery.id, rand::random::<u64>());
        let lasts_ms = i64::try_from(lease(call.provider).as_millis()).unwrap_or(i64::MAX);
        let end = Instant::now() + MOST_WAIT;
        let mut is_first = true;
        while Instant::now() < end {
            // Made before it is known to be ours: it is left again even if this is broken off while
            // the bus is asked.
            let seat = SeatTaken {
                seats: self.seats.clone(),
                key: key.clone(),
                holder: holder.clone(),
                since: Instant::now(),
            };
            let take = SeatChange::Take {
                holder: holder.clone(),
                most,
                lasts_ms,
                is_first,
            };
            if self.seats.change(&key, take).await? == SeatAnswer::Done {
                return Ok(Some(seat));
            }
            is_first = false;
            seat.was_never_taken();
            tokio::time::sleep(SEAT_PAUSE.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
        Ok(None)
    }

    /// When one that found no seat is to come back, behind all others of all workers.
    async fn come_back(&self, call: &Call<'_>, most: u32) -> Result<Timestamp, NotStored> {
        Ok(
            match self
                .seats
                .change(&seats_of(call), SeatChange::ComeBack { most })
                .await?
            {
                SeatAnswer::At(until_ms) => {
                    Timestamp::from_millisecond(until_ms).unwrap_or(Timestamp::MAX)
                }
                SeatAnswer::Done | SeatAnswer::Full => self.bus.clock().after(MOST_WAIT),
            },
        )
    }

    /// What has found neither place nor seat is parked until then, or until its age ends.
    fn crowded(&self, call: &Call<'_>, until: Timestamp) -> Leave {
        let end = limits::end(call.planned_at.as_ref(), call.provider);
        if end.is_some_and(|end| end <= self.bus.clock().now()) {
            return Leave::GiveUp(
                "not called any more: too many calls of its destination were under way".to_owned(),
            );
        }
        let until = end.map_or(until, |end| end.min(until));
        Leave::Park(Parking {
            until,
            may_be_woken: true,
            slot_ms: 0,
            why: NotAttempted::NoPermit,
        })
    }
}

/// A seat among all workers, left when it is dropped.
pub(super) struct SeatTaken {
    seats: Arc<Ledger<SeatChange>>,
    key: String,
    holder: String,
    since: Instant,
}

impl SeatTaken {
    fn was_never_taken(mut self) {
        self.holder.clear();
    }
}

impl Drop for SeatTaken {
    fn drop(&mut self) {
        if !self.holder.is_empty() {
            let took_ms = self.since.elapsed().as_secs_f64() * 1e3;
            drop(self.seats.change(
                &self.key,
                SeatChange::Leave {
                    holder: std::mem::take(&mut self.holder),
                    took_ms,
                },
            ));
        }
    }
}

fn seats_of(call: &Call<'_>) -> String {
    format!("seats.{}", call.destination.tokens())
}
