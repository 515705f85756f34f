//! The leases of the replicas' processes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tidings_core::model::process_lease::{Term, Validity, expiry_ms, validity};
use tidings_core::model::time::between;
use tidings_core::wire::{Holder, ProcessLease};
use tokio::time::Instant;

/// The processes, and their records on the bus.
pub struct Processes {
    start: Instant,
    terms: BTreeMap<usize, Term>,
    last_renewals: BTreeMap<String, Instant>,
    /// Replicas whose renewals the bus does not confirm.
    unconfirmed: BTreeSet<usize>,
    records: BTreeMap<String, ProcessLease>,
    begun: usize,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            terms: BTreeMap::new(),
            last_renewals: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            records: BTreeMap::new(),
            begun: 0,
        }
    }
}

impl Processes {
    fn instant(&self, now: Timestamp) -> Instant {
        self.start + between(Timestamp::UNIX_EPOCH, now)
    }

    fn begin(&mut self, replica: usize) -> &mut Term {
        self.begun += 1;
        let term = Term::new(format!("process {}", self.begun));
        self.terms.insert(replica, term);
        self.terms.get_mut(&replica).expect("it was inserted")
    }

    fn end_if_over(&mut self, replica: usize, now: Timestamp) {
        let now = self.instant(now);
        if self
            .terms
            .get(&replica)
            .is_some_and(|term| term.is_over(now))
        {
            self.terms.remove(&replica);
        }
    }

    /// A replica holds a lease. Returns the id of its process, and the lease's number.
    pub fn hold(&mut self, replica: usize, name: &str, now: Timestamp) -> (String, u64) {
        self.end_if_over(replica, now);
        let instant = self.instant(now);
        let term = match self.terms.contains_key(&replica) {
            true => self.terms.get_mut(&replica).expect("it is there"),
            false => self.begin(replica),
        };
        (term.id.clone(), term.add(name, instant))
    }

    pub fn release(&mut self, replica: usize, process: &str, number: u64) {
        if let Some(term) = self.terms.get_mut(&replica)
            && term.id == process
        {
            term.remove(number);
        }
    }

    pub fn kill(&mut self, replica: usize) {
        self.terms.remove(&replica);
    }

    pub fn stop_renewals(&mut self, replica: usize, is_stopped: bool) {
        match is_stopped {
            true => self.unconfirmed.insert(replica),
            false => self.unconfirmed.remove(&replica),
        };
    }

    pub fn confirm_all_renewals(&mut self) {
        self.unconfirmed.clear();
    }

    /// Whether a replica has lost a lease.
    pub fn is_lost(&mut self, replica: usize, lease: (&str, u64), now: Timestamp) -> bool {
        self.end_if_over(replica, now);
        let (process, number) = lease;
        let term = self.terms.get(&replica);
        term.is_none_or(|term| term.id != process || term.lapses_at(number).is_none())
    }

    /// Every replica that is not stalled renews its lease, if that is due.
    pub fn renew(&mut self, stalled: &BTreeSet<usize>, now: Timestamp) {
        let instant = self.instant(now);
        let replicas: Vec<usize> = self.terms.keys().copied().collect();
        for replica in replicas {
            if stalled.contains(&replica) {
                continue;
            }
            self.end_if_over(replica, now);
            if !self.unconfirmed.contains(&replica) {
                self.renew_one(replica, now, instant);
            }
        }
    }

    fn renew_one(&mut self, replica: usize, now: Timestamp, instant: Instant) {
        let Some(term) = self.terms.get_mut(&replica) else {
            return;
        };
        let last = self.last_renewals.get(&term.id).copied();
        if term.renew_at(last).is_none_or(|due| due > instant) {
            return;
        }
        let record = self.records.entry(term.id.clone()).or_default();
        if record.ended {
            self.terms.remove(&replica);
            return;
        }
        record.until_ms = expiry_ms(now);
        term.renewed(instant);
        self.last_renewals.insert(term.id.clone(), instant);
    }

    /// Whether a lease of another attempt has ended, as a replica sees it.
    pub fn has_ended(
        &mut self,
        replica: usize,
        holder: &Holder,
        name: &str,
        now: Timestamp,
    ) -> bool {
        if let Some(own) = self.terms.get(&replica)
            && own.id == holder.process
        {
            return !own.holds(name);
        }
        let stored = self.records.get(&holder.process);
        match validity(holder, stored, now) {
            Validity::Valid => false,
            Validity::Ended => true,
            Validity::Expired => {
                self.records
                    .entry(holder.process.clone())
                    .or_default()
                    .ended = true;
                true
            }
        }
    }
}
