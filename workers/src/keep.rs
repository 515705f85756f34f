//! Keeping a state at its service: the record in the bucket, the lease, the call.

use std::time::Duration;

use async_nats::jetstream::kv::{CreateErrorKind, Store, UpdateErrorKind};
use tidings_core::bus::Bus;
use tidings_core::wire::{Desired, Record};
use tidings_core::{Failure, Message as _, Outcome, Reason, id, stream};

use crate::attempt::{Ended, Prepared, nothing_to_say};
use crate::latest::{Lease, Step, leased, order, posted, step};
use crate::notification::Notification;
use crate::notifier::{self, Held, KeepState, Sent};
use crate::throttle::caller::{Caller, not_now};

/// A write that was overtaken is followed by another, this often at most; then the delivery is tried again later.
const MOST_ROUNDS: usize = 8;
/// Beside the time of the calls themselves.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Reading pages and writing take a few calls.
const CALLS_IN_A_LEASE: u32 = 4;
/// Who waits for a lease looks again this soon: mostly its holder has told the noted state long before the lease ends.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What came of keeping a state.
pub enum Kept {
    /// It ended well; `others` names the delivery whose state was posted, where it is not the one at hand.
    Ended {
        /// How the delivery at hand ended.
        ended: Ended,
        /// The delivery whose state was posted instead.
        other: Option<String>,
    },
    /// Somebody else is writing: look again after this long.
    Wait(Duration),
}

/// Keeps states for one process.
#[derive(Clone)]
pub struct Keeper {
    bus: Bus,
    records: Store,
}

/// The name of a key's record, and of the place where its deliveries are parked.
pub fn record_key(key: &str) -> String {
    id::digest(&[key])
}

impl Keeper {
    /// Opens the bucket of records.
    ///
    /// # Errors
    /// It is not there.
    pub async fn open(bus: &Bus) -> Result<Self, String> {
        let records = bus.jetstream().get_key_value(stream::LATEST).await.map_err(|error| error.to_string())?;
        Ok(Self { bus: bus.clone(), records })
    }

    /// Has the newest state of the notification's key at its service, with as few calls as that takes.
    ///
    /// # Guarantees
    /// When it ends well, what the service was last told by anybody is the newest state that anybody asked for, or
    /// somebody who holds the lease will tell it. An unchanged state costs no call.
    ///
    /// # Errors
    /// The service or the bus failed; the state is noted all the same, and counts as not posted.
    pub async fn keep(
        &self,
        notifier: &dyn KeepState,
        notification: &Notification<'_>,
        sequence: u64,
        prepared: &Prepared,
        caller: &mut Caller<'_>,
    ) -> Result<Kept, Failure> {
        let Some(wanted) = notifier.desire(notification)? else {
            return Ok(Kept::Ended { ended: nothing_to_say(), other: None });
        };
        let name = record_key(&wanted.key);
        let mine = Desired {
            order: Some(order(notification.event, sequence)),
            state: wanted.state.clone(),
            delivery_id: notification.delivery_id.to_owned(),
        };
        let lease = Lease {
            holder: format!("{}/{:016x}", notification.delivery_id, rand::random::<u64>()),
            lasts: prepared.provider.timeout * CALLS_IN_A_LEASE + LEASE_MARGIN,
        };
        loop {
            let (record, revision) = self.load(&name).await?;
            match step(record.as_ref(), &mine, &lease, self.bus.clock().now()) {
                Step::Superseded => return Ok(ended(Outcome::Superseded, "a newer state is posted")),
                Step::Duplicate(None) => return Ok(ended(Outcome::Duplicate, "the service has this state already")),
                Step::Duplicate(Some(news)) => {
                    if self.store(&name, &news, revision).await?.is_some() {
                        return Ok(ended(Outcome::Duplicate, "the service has this state already"));
                    }
                }
                Step::Wait(wait, None) => return Ok(Kept::Wait(wait.min(LOOK_AGAIN_AFTER))),
                Step::Wait(wait, Some(news)) => {
                    if self.store(&name, &news, revision).await?.is_some() {
                        return Ok(Kept::Wait(wait.min(LOOK_AGAIN_AFTER)));
                    }
                }
                Step::Write(leased) => {
                    if let Some(revision) = self.store(&name, &leased, revision).await? {
                        tidings_core::failpoint::reach("worker:leased");
                        // Only now: what is desired is noted even if the service can't be asked.
                        if !caller.may_call().await {
                            self.release(&name, &lease).await;
                            return Err(not_now());
                        }
                        if let Err(failure) = notifier.prepare(notification).await {
                            caller.saw(Some(&prepared.redacted(failure.clone())));
                            self.release(&name, &lease).await;
                            return Err(failure);
                        }
                        return self.write(notifier, &wanted.key, &name, leased, revision, &mine, &lease, prepared, caller).await;
                    }
                }
            }
        }
    }

    /// Writes what is desired until it is what is desired when the answer comes.
    #[expect(clippy::too_many_arguments, reason = "one caller; they are the state of its loop")]
    async fn write(
        &self,
        notifier: &dyn KeepState,
        key: &str,
        name: &str,
        mut record: Record,
        mut revision: u64,
        mine: &Desired,
        lease: &Lease,
        prepared: &Prepared,
        caller: &mut Caller<'_>,
    ) -> Result<Kept, Failure> {
        for round in 0..MOST_ROUNDS {
            // Each write asks for leave, since each counts at the service.
            if round > 0 && !caller.may_call().await {
                self.release(name, lease).await;
                return Err(not_now());
            }
            let desired = record.desired.clone().unwrap_or_default();
            let wanted = notifier::Desired { key: key.to_owned(), state: desired.state.clone() };
            let told = tell(notifier, &wanted, &record).await.map_err(|failure| prepared.redacted(failure));
            caller.saw(told.as_ref().err());
            let (ended, handle) = match told {
                Ok(told) => told,
                Err(failure) => {
                    self.release(name, lease).await;
                    return Err(failure);
                }
            };
            // Others may have noted the same state meanwhile: that moves the record, and changes nothing.
            while let Some(noted) = posted(&record, &desired, handle.clone(), lease, self.bus.clock().now()) {
                if self.store(name, &noted, Some(revision)).await?.is_some() {
                    let other = (desired.delivery_id != mine.delivery_id).then_some(desired.delivery_id);
                    let ended = if other.is_some() { Ended::new(Outcome::Superseded, "a newer state is posted") } else { ended };
                    return Ok(Kept::Ended { ended, other });
                }
                let (present, at) = self.load(name).await?;
                (record, revision) = (present.unwrap_or_default(), at.unwrap_or_default());
            }
            // It moved, or the lease ran out: a stale answer proves nothing, so the present state is written again.
            loop {
                let (present, at) = self.load(name).await?;
                let mut present = present.unwrap_or_default();
                if let Some(handle) = &handle {
                    present.handle.clone_from(handle);
                }
                present.read = true;
                if let Some(wait) = crate::latest::foreign_lease(&present, lease, self.bus.clock().now()) {
                    // The other's note must not stand: our late write may have come after theirs.
                    let doubtful = Record { posted: None, ..present };
                    if self.store(name, &doubtful, at).await?.is_some() {
                        return Ok(Kept::Wait(wait.min(LOOK_AGAIN_AFTER)));
                    }
                    continue;
                }
                let prolonged = leased(present, lease, self.bus.clock().now());
                if let Some(stored) = self.store(name, &prolonged, at).await? {
                    (record, revision) = (prolonged, stored);
                    break;
                }
            }
        }
        self.release(name, lease).await;
        Err(Failure::transient(Reason::RateLimited, "the state changes faster than the service answers"))
    }

    /// Lets others write at once; where the bus is away, the lease runs out by itself.
    async fn release(&self, name: &str, lease: &Lease) {
        while let Ok((Some(record), revision)) = self.load(name).await
            && record.lease_holder == lease.holder
        {
            let free = Record { lease_holder: String::new(), lease_until: None, ..record };
            if !matches!(self.store(name, &free, revision).await, Ok(None)) {
                return;
            }
        }
    }

    async fn load(&self, name: &str) -> Result<(Option<Record>, Option<u64>), Failure> {
        let entry = self.records.entry(name).await.map_err(|error| bus_failure(&error))?;
        let Some(entry) = entry else { return Ok((None, None)) };
        if entry.operation != async_nats::jetstream::kv::Operation::Put {
            return Ok((None, Some(entry.revision)));
        }
        // A record that can't be read is as good as none: the service is asked again.
        Ok((Record::decode(entry.value).ok(), Some(entry.revision)))
    }

    /// Stores the record if it has not moved since; tells its new revision.
    async fn store(&self, name: &str, record: &Record, revision: Option<u64>) -> Result<Option<u64>, Failure> {
        let value = record.encode_to_vec().into();
        match revision {
            None => match self.records.create(name, value).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(bus_failure(&error)),
            },
            Some(revision) => match self.records.update(name, value, revision).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(bus_failure(&error)),
            },
        }
    }
}

/// Asks the service what it holds, the first time, then tells it.
async fn tell(notifier: &dyn KeepState, wanted: &notifier::Desired, record: &Record) -> Result<(Ended, Option<String>), Failure> {
    let mut handle = (!record.handle.is_empty()).then(|| record.handle.clone());
    if !record.read {
        match notifier.read(wanted).await? {
            Held::Same { handle } => return Ok((Ended::new(Outcome::Duplicate, "the service has this state already"), handle)),
            Held::Other { handle: known } => handle = known,
            Held::Unknown => {}
        }
    }
    let sent = notifier.write(wanted, handle.as_deref()).await?;
    tidings_core::failpoint::reach("worker:accepted");
    if let Sent::Accepted { handle: Some(new), .. } = &sent {
        handle = Some(new.clone());
    }
    Ok((Ended::from(sent), handle))
}

fn ended(outcome: Outcome, why: &str) -> Kept {
    Kept::Ended { ended: Ended::new(outcome, why), other: None }
}

fn bus_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::transient(Reason::Unreachable, format!("the bus: {error}"))
}
