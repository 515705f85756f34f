//! Leases that end with their process: the holder's side, and that of others.
//!
//! One task renews one record while the process holds a lease for longer than a second. The record
//! is in the bucket `suspects`, whose entries expire.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams};
use crate::model::process_lease::{Term, Validity, expiry_ms, validity};
use crate::runtime::codes::log as codes;
use crate::wire::{Holder, ProcessLease};

/// The pause after a renewal that failed.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// After this time without a renewal, a process without leases has a new id.
const UNUSED_FOR: Duration = Duration::from_secs(10);
/// The number of other processes whose leases are remembered.
const MOST_KNOWN: usize = 1000;

/// The leases that this process holds, and what it knows of the leases of others.
pub struct ProcessLeases {
    bus: Bus,
    records: Records,
    own: Mutex<Own>,
    /// The leases of other processes, as last seen.
    known: Mutex<HashMap<String, ProcessLease>>,
}

/// The present term of this process.
struct Own {
    term: Term,
    /// Canceled when the term ends.
    over: CancellationToken,
    /// The revision of the record of the process. `None`: there is none.
    revision: Option<u64>,
    last_renewal: Option<Instant>,
    is_renewing: bool,
}

/// A lease that this process holds, until it is dropped.
pub struct HeldLease {
    leases: Arc<ProcessLeases>,
    process: String,
    number: u64,
    over: CancellationToken,
}

impl Own {
    fn new() -> Self {
        Self {
            term: Term::new(format!("{:032x}", rand::random::<u128>())),
            over: CancellationToken::new(),
            revision: None,
            last_renewal: None,
            is_renewing: false,
        }
    }

    /// Begins a new term if the record of this one has expired while there was no lease. Others may
    /// have ended it, or the bucket has removed it.
    fn replace_if_unused(&mut self) {
        let is_unused = self.term.count() == 0 && !self.is_renewing;
        if is_unused
            && self
                .last_renewal
                .is_some_and(|at| at.elapsed() > UNUSED_FOR)
        {
            *self = Self::new();
        }
    }

    /// Ends the term. All its leases are lost.
    fn end(&mut self, why: &str) {
        tracing::warn!(
            code = codes::LEASES_LOST,
            leases = self.term.count(),
            error = why,
            "leases of this process ended, because they were not renewed in time"
        );
        self.over.cancel();
        let is_renewing = self.is_renewing;
        *self = Self {
            is_renewing,
            ..Self::new()
        };
    }

    fn end_if_lapsed(&mut self) {
        if self.term.is_over(Instant::now()) {
            self.end("the bus confirmed no renewal, or the process stalled");
        }
    }
}

impl ProcessLeases {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Arc<Self>, BusError> {
        Ok(Arc::new(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::SUSPECTS).await?,
            own: Mutex::new(Own::new()),
            known: Mutex::default(),
        }))
    }

    /// Holds a lease that the caller stores next, with the id of this process. `name` identifies
    /// it among all leases.
    ///
    /// # Guarantees
    /// The lease is renewed until it is dropped. It writes nothing if that is within a second.
    pub fn hold(self: &Arc<Self>, name: &str) -> HeldLease {
        let mut own = self.own.lock();
        own.end_if_lapsed();
        own.replace_if_unused();
        let number = own.term.add(name, Instant::now());
        if !std::mem::replace(&mut own.is_renewing, true) {
            tokio::spawn(self.clone().renew_while_held());
        }
        HeldLease {
            leases: self.clone(),
            process: own.term.id.clone(),
            number,
            over: own.over.clone(),
        }
    }

    /// Whether a lease of this name has ended, because its process died or lost it. An expired
    /// lease of another process is ended here.
    ///
    /// # Guarantees
    /// After `true` its holder never counts as valid again, and it had stopped, unless it stalls.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn has_ended(&self, holder: &Holder, name: &str) -> Result<bool, BusError> {
        let now = self.bus.clock().now();
        {
            let own = self.own.lock();
            if own.term.id == holder.process {
                return Ok(!own.term.holds(name));
            }
        }
        let known = self.known.lock().get(&holder.process).copied();
        match validity(holder, known.as_ref(), now) {
            Validity::Valid => Ok(false),
            Validity::Ended => Ok(true),
            Validity::Expired => self.end_if_expired(holder, now).await,
        }
    }

    async fn end_if_expired(&self, holder: &Holder, now: Timestamp) -> Result<bool, BusError> {
        let key = key(&holder.process);
        let (stored, revision) = self.records.load::<ProcessLease>(&key).await?;
        let judged = validity(holder, stored.as_ref(), now);
        if judged == Validity::Expired {
            let ended = ProcessLease {
                until_ms: stored.map_or(holder.until_ms, |stored| stored.until_ms),
                ended: true,
            };
            // If the record has changed, the process lives, or another one has ended it.
            if self.records.store(&key, &ended, revision).await?.is_none() {
                return Ok(false);
            }
            tracing::info!(
                code = codes::PROCESS_LEASE_ENDED,
                process = holder.process,
                "another process did not renew its leases and is taken for dead"
            );
            self.remember(&holder.process, ended);
            return Ok(true);
        }
        if let Some(stored) = stored {
            self.remember(&holder.process, stored);
        }
        Ok(judged == Validity::Ended)
    }

    fn remember(&self, process: &str, lease: ProcessLease) {
        let mut known = self.known.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(process.to_owned(), lease);
    }

    async fn renew_while_held(self: Arc<Self>) {
        loop {
            let due = {
                let mut own = self.own.lock();
                let due = own.term.renew_at(own.last_renewal);
                own.is_renewing = due.is_some();
                due
            };
            let Some(due) = due else { return };
            if due > Instant::now() {
                sleep_until(due).await;
            } else if let Err(error) = self.renew().await {
                tracing::debug!(
                    code = codes::LEASES_NOT_RENEWED,
                    %error,
                    "leases of this process not renewed, retrying"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
            self.own.lock().end_if_lapsed();
        }
    }

    /// Renews the record of this process, or ends the term if it has lapsed.
    async fn renew(&self) -> Result<(), BusError> {
        let (process, revision, lapses_at) = {
            let mut own = self.own.lock();
            own.end_if_lapsed();
            let Some(lapses_at) = own.term.first_lapses_at() else {
                return Ok(());
            };
            (own.term.id.clone(), own.revision, lapses_at)
        };
        if !self.bus.is_connected() {
            return Err(BusError::Unavailable("not connected".to_owned()));
        }
        let sent = Instant::now();
        let stored = timeout_at(lapses_at, self.store(&process, revision)).await;
        let stored = stored.map_err(|_| BusError::Unavailable("no answer in time".to_owned()))?;
        let mut own = self.own.lock();
        own.end_if_lapsed();
        if own.term.id != process {
            return Ok(());
        }
        match stored? {
            Stored::Renewed(revision) => {
                own.revision = Some(revision);
                own.last_renewal = Some(sent);
                own.term.renewed(sent);
            }
            // An earlier renewal, whose answer was lost.
            Stored::Changed(revision) => own.revision = Some(revision),
            Stored::Ended => own.end("another process took this one for dead"),
        }
        Ok(())
    }

    async fn store(&self, process: &str, revision: Option<u64>) -> Result<Stored, BusError> {
        let key = key(process);
        let lease = ProcessLease {
            until_ms: expiry_ms(self.bus.clock().now()),
            ended: false,
        };
        if let Some(revision) = self.records.store(&key, &lease, revision).await? {
            return Ok(Stored::Renewed(revision));
        }
        let (found, revision) = self.records.load::<ProcessLease>(&key).await?;
        Ok(match (found, revision) {
            (Some(found), Some(revision)) if !found.ended => Stored::Changed(revision),
            _ => Stored::Ended,
        })
    }
}

/// The result of a renewal.
enum Stored {
    Renewed(u64),
    /// The record has this revision.
    Changed(u64),
    /// The record was stored as ended, or is gone with its bucket.
    Ended,
}

fn key(process: &str) -> String {
    format!("process.{process}")
}

// === impl HeldLease ===

impl HeldLease {
    /// The id of this process, to store with the lease.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Does the work while the lease is valid. `None` if the lease was lost: others may hold it.
    ///
    /// The work is not continued after that, not even when the process wakes from a stall.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut lost, mut work) = (pin!(self.lost()), pin!(work));
        poll_fn(|context| {
            if lost.as_mut().poll(context).is_ready() || self.left().is_none() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    async fn lost(&self) {
        while let Some(lapses_at) = self.left() {
            let _ = self.over.run_until_cancelled(sleep_until(lapses_at)).await;
        }
    }

    /// When the lease lapses; `None` if it is lost.
    fn left(&self) -> Option<Instant> {
        let mut own = self.leases.own.lock();
        own.end_if_lapsed();
        let is_ours = own.term.id == self.process;
        is_ours.then(|| own.term.lapses_at(self.number)).flatten()
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut own = self.leases.own.lock();
        if own.term.id == self.process {
            own.term.remove(self.number);
        }
    }
}
