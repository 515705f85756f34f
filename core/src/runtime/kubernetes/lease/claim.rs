//! Whether a Lease may be taken, and what a holder writes. Pure: time is an argument.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The validity of a Lease after its last renewal.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How often a waiting replica reads the Lease.
const READ_EVERY: Duration = Duration::from_secs(2);

/// The next step of a replica that waits for the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take the Lease: it has no holder, or it has expired.
    Take,
    /// Another replica holds it: read it again after this time.
    Wait(Duration),
}

/// The last change of a Lease, and when it was observed by our own clock. Times that the holder
/// writes are never compared with our clock, because the clocks of two machines may differ.
#[derive(Debug, Default)]
pub(super) struct Observation {
    last: Option<(LeaseSpec, Instant)>,
}

impl Observation {
    /// Observes the current state of the Lease, and decides.
    pub(super) fn step(&mut self, spec: Option<&LeaseSpec>, identity: &str, now: Instant) -> Step {
        let Some((spec, holder)) = spec.and_then(|spec| Some((spec, holder(spec)?))) else {
            return Step::Take;
        };
        let since = match &self.last {
            Some((last, since)) if last == spec => *since,
            _ => now,
        };
        self.last = Some((spec.clone(), since));
        let valid_for = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let left = valid_for
            .map_or(DURATION, Duration::from_secs)
            .saturating_sub(now.saturating_duration_since(since));
        if holder == identity || left.is_zero() {
            Step::Take
        } else {
            Step::Wait(left.min(READ_EVERY))
        }
    }
}

/// Returns the Lease held by `identity`.
pub(super) fn taken(before: Option<&LeaseSpec>, identity: &str, now: jiff::Timestamp) -> LeaseSpec {
    let transitions = before.map_or(0, |before| {
        let is_another = holder(before) != Some(identity);
        before
            .lease_transitions
            .unwrap_or_default()
            .saturating_add(i32::from(is_another))
    });
    LeaseSpec {
        acquire_time: Some(MicroTime(now)),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        lease_transitions: Some(transitions),
        renew_time: Some(MicroTime(now)),
        ..before.cloned().unwrap_or_default()
    }
}

/// Returns the Lease without a holder.
pub(super) fn released(held: &LeaseSpec) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        ..held.clone()
    }
}

/// When the holder last renewed the Lease, by its own clock. `None` if it has no holder.
pub(super) fn last_seen(spec: &LeaseSpec) -> Option<jiff::Timestamp> {
    holder(spec)
        .and(spec.renew_time.as_ref())
        .map(|time| time.0)
}

/// Whether two states of a Lease belong to the same term of the same holder.
pub(super) fn is_same_term(one: &LeaseSpec, other: &LeaseSpec) -> bool {
    holder(one).is_some()
        && holder(one) == holder(other)
        && one.lease_transitions == other.lease_transitions
}

/// Whether a resource version is older than ours. This happens only if the API server was restored
/// from a backup.
pub(super) fn is_older(found: Option<&str>, ours: Option<&str>) -> bool {
    let number = |version: Option<&str>| version?.parse::<u64>().ok();
    number(found)
        .zip(number(ours))
        .is_some_and(|(found, ours)| found < ours)
}

fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(seconds).unwrap()
    }

    fn renewed(spec: &LeaseSpec, seconds: i64) -> LeaseSpec {
        LeaseSpec {
            renew_time: Some(MicroTime(at(seconds))),
            ..spec.clone()
        }
    }

    #[test]
    fn a_lease_without_a_holder_is_taken_at_once() {
        let now = Instant::now();
        let held = taken(None, "b", at(0));
        let empty = LeaseSpec {
            holder_identity: Some(String::new()),
            ..held.clone()
        };
        for spec in [
            None,
            Some(&LeaseSpec::default()),
            Some(&released(&held)),
            Some(&empty),
        ] {
            assert_eq!(
                Observation::default().step(spec, "a", now),
                Step::Take,
                "{spec:?}"
            );
        }
        assert_eq!(
            Observation::default().step(Some(&taken(None, "a", at(0))), "a", now),
            Step::Take,
            "our own Lease"
        );
    }

    #[test]
    fn a_lease_expires_by_our_own_clock() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        // The holder's clock is wrong by years.
        let held = taken(None, "b", at(-1_000_000_000));
        let renewed = renewed(&held, -999_999_995);
        let mut observation = Observation::default();
        for (after, spec, step) in [
            (0, &held, Step::Wait(READ_EVERY)),
            (14, &held, Step::Wait(seconds(1))),
            (14, &renewed, Step::Wait(READ_EVERY)),
            (28, &renewed, Step::Wait(seconds(1))),
            (29, &renewed, Step::Take),
        ] {
            assert_eq!(
                observation.step(Some(spec), "a", start + seconds(after)),
                step,
                "after {after} s"
            );
        }
    }

    #[test]
    fn a_released_lease_has_no_former_holder() {
        let held = renewed(&taken(None, "b", at(0)), 7);
        assert_eq!(last_seen(&held), Some(at(7)));
        assert_eq!(last_seen(&released(&held)), None);
    }

    #[test]
    fn a_lease_lasts_as_long_as_its_holder_says() {
        let start = Instant::now();
        let short = LeaseSpec {
            lease_duration_seconds: Some(1),
            ..taken(None, "b", at(0))
        };
        let mut observation = Observation::default();
        assert_eq!(
            observation.step(Some(&short), "a", start),
            Step::Wait(Duration::from_secs(1))
        );
        assert_eq!(
            observation.step(Some(&short), "a", start + Duration::from_secs(1)),
            Step::Take
        );
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older(Some("99"), Some("100")));
        for (found, ours) in [
            (Some("100"), Some("100")),
            (Some("101"), Some("100")),
            (None, Some("1")),
            (Some("a"), Some("b")),
        ] {
            assert!(!is_older(found, ours), "{found:?} {ours:?}");
        }
    }

    #[test]
    fn each_change_of_the_holder_begins_a_term() {
        let first = taken(None, "a", at(0));
        let second = taken(Some(&first), "b", at(1));
        let again = taken(Some(&released(&second)), "a", at(2));
        let transitions = [&first, &second, &again].map(|spec| spec.lease_transitions);
        assert_eq!(transitions, [Some(0), Some(1), Some(2)]);
        assert!(is_same_term(&first, &renewed(&first, 5)));
        for (one, other) in [
            (&first, &second),
            (&first, &again),
            (&released(&first), &released(&first)),
        ] {
            assert!(!is_same_term(one, other), "{one:?} {other:?}");
        }
    }
}
