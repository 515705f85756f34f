//! Keeping a state at its service: does on the bus and with the service what
//! [`crate::newest_wins::machine`] says.

pub mod machine;
pub mod record;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use tidings_core::bus::records::Records;
use tidings_core::bus::streams;
use tidings_core::bus::{Bus, NotStored};
use tidings_core::model::id;
use tidings_core::runtime::failpoint::reach;
use tidings_core::wire::{Desired, Record};
use tidings_core::{Delivery, Failure, Reason};

use crate::attempt::{Prepared, nothing_to_say};
use crate::message::Message;
pub use crate::newest_wins::machine::Kept;
use crate::newest_wins::machine::{Action, Answer, Keeping};
use crate::newest_wins::record::{Lease, order};
use crate::notifier::contract::{self, KeepState};

use crate::throttle::caller::{Caller, not_now};

/// Beside the time of the calls themselves.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Preparing, reading a page, and writing.
const CALLS_IN_A_LEASE: u32 = 4;
/// A comment that is gone is edited in vain, then made.
const CALLS_OF_A_WRITE: u32 = 2;

/// Keeps states for one process.
#[derive(Clone)]
pub struct NewestWins {
    bus: Bus,
    records: Records,
}

/// The name of a key's record, and of the place where its deliveries are parked.
pub fn record_key(key: &str) -> String {
    id::digest(&[key])
}

impl NewestWins {
    /// Opens the bucket of records.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus) -> Result<Self, NotStored> {
        Ok(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::LATEST).await?,
        })
    }

    /// Has the newest state of the notification's key at its service, with as few calls as that
    /// takes.
    ///
    /// # Guarantees
    /// When it ends well, what the service was last told by anybody is the newest state that
    /// anybody asked for, or somebody who holds the lease will tell it. An unchanged state
    /// costs no call.
    ///
    /// # Errors
    /// The notification asks for nothing that can be told.
    pub async fn keep(
        &self,
        notifier: &dyn KeepState,
        notification: &Message<'_>,
        delivery: &Delivery,
        prepared: &Prepared,
        caller: &mut Caller<'_>,
    ) -> Result<Kept, Failure> {
        let Some(wanted) = notifier.desire(notification)? else {
            return Ok(Kept::Ended {
                ended: nothing_to_say(),
                other: None,
            });
        };
        let name = record_key(&wanted.key);
        let mine = Desired {
            order: Some(order(notification.event, delivery.event_sequence)),
            state: wanted.state,
            delivery_id: delivery.id.clone(),
            planned_at: delivery.planned_at,
        };
        let timeout = prepared.provider.timeout;
        let lease = Lease {
            holder: format!("{}/{:016x}", delivery.id, rand::random::<u64>()),
            lasts: timeout * CALLS_IN_A_LEASE + LEASE_MARGIN,
            write: timeout * CALLS_OF_A_WRITE,
        };
        let mut keeping = Keeping::new(mine, lease, notifier.needs_handle());
        let desired = |state| contract::DesiredState {
            key: wanted.key.clone(),
            state,
        };
        let mut action = Action::Load;
        loop {
            caller.is_for(keeping.planned_at());
            let done = match action {
                Action::End(kept) => return Ok(kept),
                Action::Load => self.load(&name).await,
                Action::Store(record, revision) => {
                    reach("worker:recording");
                    let stored = self.store(&name, &record, revision).await;
                    stored
                        .inspect(|_| reach("worker:recorded"))
                        .map(Answer::Stored)
                }
                // Only now: a state that is told already, or not yet, costs nobody a slot.
                Action::Prepare if !caller.may_call().await => Err(not_now()),
                Action::Prepare => {
                    reach("worker:leased");
                    seen(prepared, caller, notifier.prepare(notification).await)
                        .map(|()| Answer::Prepared)
                }
                Action::Read(state) => seen(prepared, caller, notifier.read(&desired(state)).await)
                    .map(Answer::RemoteState),
                Action::Write(state, handle) => {
                    let sent = notifier.write(&desired(state), handle.as_deref()).await;
                    seen(prepared, caller, sent)
                        .inspect(|_| reach("worker:accepted"))
                        .map(Answer::Sent)
                }
            };
            action = keeping.next(done.unwrap_or_else(Answer::Failed), self.bus.clock().now());
        }
    }

    async fn load(&self, name: &str) -> Result<Answer, Failure> {
        let (record, revision) = self
            .records
            .load::<Record>(name)
            .await
            .map_err(|error| bus_failure(&error))?;
        Ok(Answer::Loaded(record.map(Box::new), revision))
    }

    /// Stores the record if it has not moved since; tells its new revision.
    async fn store(
        &self,
        name: &str,
        record: &Record,
        revision: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        self.records
            .store(name, record, revision)
            .await
            .map_err(|error| bus_failure(&error))
    }
}

/// What a call has shown of its service is noted.
fn seen<T>(
    prepared: &Prepared,
    caller: &mut Caller<'_>,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    let result = result.map_err(|failure| prepared.redacted(failure));
    caller.saw(result.as_ref().err());
    result
}

fn bus_failure(error: &NotStored) -> Failure {
    Failure::transient(Reason::Unreachable, format!("the bus: {error}"))
}
