//! The lease of a process, as pure decisions. Every lease that a process holds ends with it: of
//! probes, permits, states and wake-ups.
//!
//! ```text
//!  record of a probe, permit, …           record of the process
//!  holder: process, until_ms ───────────► until_ms, renewed every second; ended
//! ```
//!
//! A lease is valid until its own `until_ms`, and from then on until that of the process. So a
//! short lease needs no second record, and one renewal keeps all leases of a process. Another
//! process ends an expired one by compare-and-set, so that a late renewal fails.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::wire::{Holder, ProcessLease};

/// How long a lease is valid without a renewal. Others see within this time that its holder died.
pub const LASTS: Duration = Duration::from_secs(5);
/// A process renews its lease this often while it holds a lease for longer than this.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A holder stops this long before others may take its lease: clocks differ a little.
const MARGIN: Duration = Duration::from_secs(1);

/// What another process concludes from a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Its holder may still work.
    Valid,
    /// It has expired. It ends when the lease of its process is stored as ended.
    Expired,
    /// Its process has ended.
    Ended,
}

/// The holder of a lease that is stored now.
pub fn holder(process: &str, now: Timestamp) -> Holder {
    Holder {
        process: process.to_owned(),
        until_ms: expiry_ms(now),
    }
}

/// When a lease expires that is stored or renewed now.
pub fn expiry_ms(now: Timestamp) -> i64 {
    let lasts = i64::try_from(LASTS.as_millis()).unwrap_or(i64::MAX);
    now.as_millisecond().saturating_add(lasts)
}

/// Judges the lease of a holder by the record of its process.
pub fn validity(holder: &Holder, process: Option<&ProcessLease>, now: Timestamp) -> Validity {
    let is_over = |until_ms: i64| until_ms <= now.as_millisecond();
    match process {
        _ if !is_over(holder.until_ms) => Validity::Valid,
        Some(process) if process.ended => Validity::Ended,
        Some(process) if !is_over(process.until_ms) => Validity::Valid,
        _ if holder.process.is_empty() => Validity::Ended,
        _ => Validity::Expired,
    }
}

/// The leases that this process holds under one id. A term ends when a lease lapses, and never
/// continues: the next leases have another id.
#[derive(Debug)]
pub struct Term {
    /// The id of the process in this term.
    pub id: String,
    held: BTreeMap<u64, Held>,
    next: u64,
    /// Until when the last confirmed renewal counts.
    renewed_until: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    name: String,
    since: Instant,
}

impl Term {
    /// A term in which nothing is held yet.
    pub fn new(id: String) -> Self {
        Self {
            id,
            held: BTreeMap::new(),
            next: 0,
            renewed_until: None,
        }
    }

    /// Adds a lease that is about to be stored. Returns its number.
    pub fn add(&mut self, name: &str, now: Instant) -> u64 {
        self.next += 1;
        let (name, since) = (name.to_owned(), now);
        self.held.insert(self.next, Held { name, since });
        self.next
    }

    /// Removes a lease.
    pub fn remove(&mut self, number: u64) {
        self.held.remove(&number);
    }

    /// Whether a lease of this name is held.
    pub fn holds(&self, name: &str) -> bool {
        self.held.values().any(|held| held.name == name)
    }

    /// The number of leases that are held.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// When to renew next, by the time of the last renewal. `None` if nothing is held.
    pub fn renew_at(&self, last: Option<Instant>) -> Option<Instant> {
        let (_, oldest) = self.held.first_key_value()?;
        let due = oldest.since + RENEW_EVERY;
        Some(last.map_or(due, |last| due.max(last + RENEW_EVERY)))
    }

    /// When a lease lapses, unless it is renewed: its holder must have stopped by then.
    pub fn lapses_at(&self, number: u64) -> Option<Instant> {
        let own = self.held.get(&number)?.since + (LASTS - MARGIN);
        Some(self.renewed_until.map_or(own, |renewed| renewed.max(own)))
    }

    /// When the first lease lapses. `None` if nothing is held.
    pub fn first_lapses_at(&self) -> Option<Instant> {
        let (oldest, _) = self.held.first_key_value()?;
        self.lapses_at(*oldest)
    }

    /// Whether a lease has lapsed, so that the term is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.first_lapses_at().is_some_and(|at| at <= now)
    }

    /// Notes that a renewal was confirmed that was sent at this time. The caller has checked that
    /// the term is not over.
    pub fn renewed(&mut self, sent: Instant) {
        self.renewed_until = Some(sent + (LASTS - MARGIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lease_is_valid_while_it_or_its_process_is() {
        let process = |second: i64, ended| ProcessLease {
            until_ms: second * 1000,
            ended,
        };
        let held = holder("p", at(100));
        let nobody = holder("", at(100));
        for (holder, process, second, expected) in [
            (&held, None, 104, Validity::Valid),
            (&held, None, 105, Validity::Expired),
            (&held, Some(process(90, false)), 104, Validity::Valid),
            (&held, Some(process(107, false)), 106, Validity::Valid),
            (&held, Some(process(107, false)), 107, Validity::Expired),
            (&held, Some(process(107, true)), 106, Validity::Ended),
            (&nobody, None, 104, Validity::Valid),
            (&nobody, None, 105, Validity::Ended),
        ] {
            let actual = validity(holder, process.as_ref(), at(second));
            assert_eq!(actual, expected, "{holder:?} {process:?} at {second}");
        }
    }

    #[test]
    fn a_lease_lapses_for_its_holder_before_it_expires_for_others() {
        let (mut term, start) = (Term::new("p".into()), Instant::now());
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let first = term.add("first", start);
        let second = term.add("second", seconds(3));
        assert_eq!(
            [first, second].map(|number| term.lapses_at(number)),
            [Some(seconds(4)), Some(seconds(7))]
        );
        assert!(!term.is_over(seconds(3)) && term.is_over(seconds(4)));
        term.renewed(seconds(1));
        assert!(!term.is_over(seconds(4)) && term.is_over(seconds(5)));
        term.remove(first);
        assert!(!term.is_over(seconds(5)) && term.is_over(seconds(7)));
        term.remove(second);
        assert!(!term.is_over(seconds(1000)), "nothing is held");
    }

    #[test]
    fn a_short_lease_is_not_renewed() {
        let (mut term, start) = (Term::new("p".into()), Instant::now());
        let millis = |millis| start + Duration::from_millis(millis);
        assert_eq!(term.renew_at(None), None);
        for number in 0..10 {
            let short = term.add("short", millis(100 * number));
            assert_eq!(term.renew_at(None), Some(millis(100 * number + 1000)));
            term.remove(short);
        }
        term.add("long", start);
        assert_eq!(term.renew_at(Some(millis(1500))), Some(millis(2500)));
        assert!(term.holds("long") && !term.holds("short"));
    }
}
