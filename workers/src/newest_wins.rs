//! Newest state wins: carries out the actions of [`machine`] on the bus and with the service.

pub mod described;
pub mod machine;
pub mod record;
#[cfg(test)]
mod simulation;

use std::sync::Arc;
use std::time::Duration;

use tidings_core::bus::process_leases::{HeldLease, ProcessLeases};
use tidings_core::bus::records::Records;
use tidings_core::bus::restored::has_delivery;
use tidings_core::bus::stream_history::LiveHistory;
use tidings_core::bus::streams;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::id;
use tidings_core::runtime::failpoint::reach;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::wire::{Desired, Record};
use tidings_core::{Delivery, Failure, Reason};

use crate::attempt::{AttemptResult, ParkRequest, Prepared, Refusal};
use crate::message::Message;
use crate::newest_wins::machine::{Action, ActionResult, Machine};
use crate::newest_wins::record::{WriteLease, foreign_holder, freed, order, unconfirmed};
use crate::notifier::contract::{self, KeepState};
use crate::throttle::caller::Caller;

/// The lease ends with its process, and at the latest after this many calls and a margin: prepare,
/// read a page or two, write.
const CALLS_IN_A_LEASE: u32 = 4;
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// To replace a deleted comment takes two calls: a failed update, then a new comment.
const CALLS_OF_A_WRITE: u32 = 2;

/// Writes states so that the newest one wins.
#[derive(Clone)]
pub struct NewestWins {
    bus: Bus,
    records: Records,
    leases: Arc<ProcessLeases>,
    /// What was restored from a backup, also while this process runs.
    history: Arc<LiveHistory>,
}

/// How the write of a state ended.
pub struct StateWrite {
    /// The result.
    pub result: AttemptResult,
    /// Another cluster whose state was recorded under the same key.
    pub other_cluster: Option<String>,
}

/// The name of a key's record. It is also the key under which the deliveries are parked.
pub fn record_key(key: &str) -> String {
    id::digest(&[key])
}

impl NewestWins {
    /// Opens the bucket of records.
    ///
    /// # Errors
    /// The bucket is missing, or the bus did not answer.
    pub async fn open(bus: &Bus, leases: &Arc<ProcessLeases>) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::LATEST).await?,
            leases: leases.clone(),
            history: Arc::new(LiveHistory::open(bus).await?),
        })
    }

    /// Makes the service hold the newest state of a key, with as few calls as possible. `wanted` is
    /// the state that the message asks for.
    ///
    /// # Guarantees
    /// After success, the last write of all workers was the newest state, or the holder of the
    /// lease is about to write it. An unchanged state makes no call. A call is cut off when the
    /// lease of the process lapses, before another process may write.
    pub async fn write(
        &self,
        notifier: &dyn KeepState,
        wanted: contract::DesiredState,
        message: &Message<'_>,
        delivery: &Delivery,
        prepared: &Prepared,
        caller: &mut Caller<'_>,
    ) -> StateWrite {
        let history = self.history.current().await;
        if has_delivery(&history.restored, delivery, message.event) {
            return StateWrite {
                result: AttemptResult::failed(outdated()),
                other_cluster: None,
            };
        }
        let name = record_key(&wanted.key);
        let mine = Desired {
            order: Some(order(message.event, delivery.event_sequence, &history)),
            state: wanted.state,
            delivery_id: delivery.id.clone(),
            planned_at: delivery.planned_at,
            cluster: message.event.cluster.clone(),
        };
        let cluster = mine.cluster.clone();
        let mut other_cluster = None;
        let holder = format!("{}/{:016x}", delivery.id, rand::random::<u64>());
        let held = self.leases.hold(&holder);
        let lease = write_lease(holder, held.process(), prepared.provider.timeout);
        let mut machine = Machine::new(mine, lease.clone(), notifier.needs_handle());
        let desired = |state| contract::DesiredState {
            key: wanted.key.clone(),
            state,
            secret: wanted.secret.clone(),
        };
        let mut action = Action::Load;
        loop {
            caller.extend_age(machine.planned_at());
            let result = match action {
                Action::End(result) => {
                    return StateWrite {
                        result,
                        other_cluster,
                    };
                }
                Action::Wait(wait) => {
                    return StateWrite {
                        result: self.wait_for_lease(wait, delivery, &name).await.into(),
                        other_cluster,
                    };
                }
                Action::Load => {
                    let loaded = self.load(&name, &lease).await;
                    let other = loaded.as_ref().ok();
                    let other = other.and_then(|loaded| cluster_other_than(&cluster, loaded));
                    other_cluster = other_cluster.or(other);
                    loaded
                }
                Action::Store(record, revision) => self.store(&name, &record, revision).await,
                // Only now, because a state that needs no call must not use up a slot.
                Action::Prepare => match while_held(&held, caller.admit()).await {
                    Err(lost) => Err(lost),
                    Ok(Err(why)) => Ok(ActionResult::NotAdmitted(why)),
                    Ok(Ok(())) => {
                        reach("worker:leased");
                        let result = while_held(&held, notifier.prepare(message)).await;
                        let result = result.and_then(|result| recorded(prepared, caller, result));
                        result.map(|()| ActionResult::Prepared)
                    }
                },
                Action::Read(state) => {
                    let wanted = desired(state);
                    let result = while_held(&held, notifier.read(&wanted)).await;
                    let result = result.and_then(|result| recorded(prepared, caller, result));
                    result.map(ActionResult::Read)
                }
                Action::Write(state, handle) => {
                    let wanted = desired(state);
                    let write = notifier.write(&wanted, handle.as_deref());
                    let result = while_held(&held, write).await;
                    let result = result.and_then(|result| recorded(prepared, caller, result));
                    result
                        .inspect(|_| reach("worker:accepted"))
                        .map(ActionResult::Written)
                }
            };
            let result = result.unwrap_or_else(ActionResult::Failed);
            action = machine.next(result, self.bus.clock().now());
        }
    }

    /// Loads the record. The lease of a process that has ended does not count.
    async fn load(&self, name: &str, lease: &WriteLease) -> Result<ActionResult, Failure> {
        let loaded = self.records.load::<Record>(name).await;
        let (mut record, revision) = loaded.map_err(|error| bus_failure(&error))?;
        if let Some(found) = &record
            && let Some(process) = foreign_holder(found, lease)
        {
            let ended = self.leases.has_ended(process, &found.lease_holder).await;
            if ended.map_err(|error| bus_failure(&error))? {
                record = record.map(freed);
            }
        }
        // The service may have another state since the backup was taken.
        let states = self.history.current().await.restored.states;
        if revision.is_some_and(|revision| revision <= states) {
            record = record.map(unconfirmed);
        }
        Ok(ActionResult::Loaded(record.map(Box::new), revision))
    }

    async fn store(
        &self,
        name: &str,
        record: &Record,
        revision: Option<u64>,
    ) -> Result<ActionResult, Failure> {
        reach("worker:recording");
        let stored = self.records.store(name, record, revision).await;
        let stored = stored.map_err(|error| bus_failure(&error))?;
        reach("worker:recorded");
        Ok(ActionResult::Stored(stored))
    }

    /// The delivery replaces the one that is parked under the key, and must keep its slot.
    async fn wait_for_lease(&self, wait: Duration, delivery: &Delivery, park_key: &str) -> Refusal {
        let slot_ms = match delivery.slot_ms {
            0 => self
                .bus
                .parked_slot(delivery, park_key)
                .await
                .unwrap_or_default(),
            own => own,
        };
        let request = ParkRequest::after(&self.bus, wait, NotAttempted::StateLocked);
        Refusal::Park(request).with_slot(slot_ms)
    }
}

/// The cluster of the recorded state, if it is another. Older versions did not record it.
fn cluster_other_than(cluster: &str, loaded: &ActionResult) -> Option<String> {
    let ActionResult::Loaded(Some(record), _) = loaded else {
        return None;
    };
    let recorded = &record.desired.as_ref()?.cluster;
    (!recorded.is_empty() && recorded != cluster).then(|| recorded.clone())
}

/// The failure of a delivery whose event was restored from a backup.
fn outdated() -> Failure {
    let why = "the hub was restored from a backup that held the event, so the service may have a \
               newer state; replay the dead letter if it has not";
    Failure::permanent(Reason::Restored, why)
}

fn write_lease(holder: String, process: &str, timeout: Duration) -> WriteLease {
    WriteLease {
        holder,
        process: process.to_owned(),
        lasts: timeout * CALLS_IN_A_LEASE + LEASE_MARGIN,
        write: timeout * CALLS_OF_A_WRITE,
    }
}

/// Cuts the work off when the lease is lost. This says nothing about the service.
async fn while_held<T>(held: &HeldLease, work: impl Future<Output = T>) -> Result<T, Failure> {
    held.while_held(work).await.ok_or_else(|| {
        let why = "the bus confirmed no renewal of the lease in time, so the call was cut off";
        Failure::transient(Reason::Timeout, why)
    })
}

/// Redacts the failure of a call and records the call for the circuit.
fn recorded<T>(
    prepared: &Prepared,
    caller: &mut Caller<'_>,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    let result = result.map_err(|failure| prepared.redacted(failure));
    caller.record(result.as_ref().err());
    result
}

fn bus_failure(error: &BusError) -> Failure {
    Failure::transient(Reason::Unreachable, format!("the bus: {error}"))
}
