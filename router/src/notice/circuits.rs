//! Which circuits are open for long and were not reported. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::id;
use tidings_core::model::time::{between, from_proto, proto_ms};
use tidings_core::runtime::config::ProviderName;
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, ReportedCircuit};

/// The most circuits that are known as reported, and of one namespace. More are reported after
/// others closed. Each channel has a circuit, so that one namespace can have many.
const MOST_KNOWN: usize = 4000;
const MOST_OF_NAMESPACE: usize = 100;
/// The digits of the hash of a destination.
const DIGITS: usize = 16;

/// A circuit that a notice reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenCircuit {
    /// `namespace/name` of its Provider.
    pub(super) provider: String,
    /// When it opened.
    pub(super) since: Timestamp,
}

/// What became of the circuits that are open.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OpenCircuits {
    /// Those that the next notice reports, the oldest first.
    pub(super) reported: Vec<OpenCircuit>,
    /// The number of new ones of the fallback's own Provider.
    pub(super) excluded: u64,
    /// All that need no further notice, until they close.
    pub(super) known: Vec<ReportedCircuit>,
}

/// Finds the circuits that are open for as long as `open_for`, and are not among the `known`. A
/// pause by a user is no failure.
pub(super) fn find_open(
    circuits: &[Circuit],
    known: &[ReportedCircuit],
    fallback: &ProviderName,
    open_for: Duration,
    now: Timestamp,
) -> OpenCircuits {
    let known: HashSet<_> = known.iter().map(parts).collect();
    let is_open = |circuit: &&Circuit| matches!(circuit.state(), State::Open | State::HalfOpen);
    let mut open: Vec<_> = circuits.iter().filter(is_open).collect();
    open.sort_by_key(|circuit| {
        (
            proto_ms(circuit.since),
            &circuit.namespace,
            &circuit.provider,
        )
    });
    let mut found = OpenCircuits::default();
    // Those that are known go first, so that no new one makes a notice of them again.
    let (old, new): (Vec<_>, Vec<_>) = open.into_iter().partition(|circuit| {
        let entry = entry(circuit);
        known.contains(&parts(&entry))
    });
    let mut of_namespace: HashMap<&str, usize> = HashMap::new();
    for circuit in &old {
        *of_namespace.entry(&circuit.namespace).or_default() += 1;
    }
    found.known.extend(old.into_iter().map(entry));
    for circuit in new {
        let since = from_proto(circuit.since).unwrap_or(Timestamp::UNIX_EPOCH);
        let of_namespace = of_namespace.entry(&circuit.namespace).or_default();
        if between(since, now) < open_for
            || found.known.len() >= MOST_KNOWN
            || *of_namespace >= MOST_OF_NAMESPACE
        {
            continue;
        }
        *of_namespace += 1;
        found.known.push(entry(circuit));
        let is_own = circuit.namespace == fallback.namespace && circuit.provider == fallback.name;
        match is_own {
            true => found.excluded += 1,
            false => found.reported.push(OpenCircuit {
                provider: format!("{}/{}", circuit.namespace, circuit.provider),
                since,
            }),
        }
    }
    found
}

fn entry(circuit: &Circuit) -> ReportedCircuit {
    let channel = circuit.channel.as_deref();
    let has_channel = if channel.is_some() { "channel" } else { "" };
    let mut destination = id::digest(&[
        &circuit.namespace,
        &circuit.provider,
        has_channel,
        channel.unwrap_or_default(),
    ]);
    destination.truncate(DIGITS);
    ReportedCircuit {
        destination,
        since: circuit.since,
    }
}

/// A circuit that closed and opened again is another one.
fn parts(reported: &ReportedCircuit) -> (String, i64) {
    (reported.destination.clone(), proto_ms(reported.since))
}

#[cfg(test)]
mod tests {
    use tidings_core::model::time::to_proto;

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn circuit(provider: &str, state: State, since: i64) -> Circuit {
        Circuit {
            namespace: "apps".into(),
            provider: provider.into(),
            channel: Some(String::new()),
            state: state.into(),
            since: Some(to_proto(at(since))),
            ..Circuit::default()
        }
    }

    fn found(circuits: &[Circuit], known: &[ReportedCircuit], now: i64) -> OpenCircuits {
        let fallback = ProviderName {
            namespace: "apps".into(),
            name: "fallback".into(),
        };
        find_open(circuits, known, &fallback, OPEN_FOR, at(now))
    }

    fn names(found: &OpenCircuits) -> Vec<&str> {
        let names = found.reported.iter().map(|open| open.provider.as_str());
        names.collect()
    }

    #[test]
    fn a_circuit_is_reported_once_while_it_stays_open() {
        let circuits = [
            circuit("young", State::Open, 141),
            circuit("late", State::HalfOpen, 130),
            circuit("old", State::Open, 100),
            circuit("closed", State::Closed, 1),
            circuit("paused", State::Paused, 1),
            circuit("fallback", State::Open, 1),
        ];
        let first = found(&circuits, &[], 200);
        assert_eq!(names(&first), ["apps/old", "apps/late"]);
        assert_eq!((first.excluded, first.known.len()), (1, 3));

        let second = found(&circuits, &first.known, 201);
        assert_eq!(names(&second), ["apps/young"]);
        assert_eq!((second.excluded, second.known.len()), (0, 4));

        // A probe changes the state, and not the time.
        let probed = circuit("old", State::HalfOpen, 100);
        assert_eq!(names(&found(&[probed], &second.known, 300)), [""; 0]);
        let again = circuit("old", State::Open, 210);
        let third = found(&[again], &second.known, 300);
        assert_eq!(names(&third), ["apps/old"]);
        assert_eq!(third.known.len(), 1, "closed circuits are forgotten");
    }

    #[test]
    fn the_known_circuits_have_a_bound_for_each_namespace() {
        let circuits = |count: usize| -> Vec<_> {
            let each = (0..count).map(|number| circuit(&format!("p{number:04}"), State::Open, 1));
            each.collect()
        };
        let mut all = circuits(150);
        let first = found(&all, &[], 100);
        assert_eq!((first.reported.len(), first.known.len()), (100, 100));
        let mut of_other = circuit("p", State::Open, 2);
        of_other.namespace = "other".into();
        all.push(of_other);
        let second = found(&all, &first.known, 100);
        assert_eq!(names(&second), ["other/p"]);
        let third = found(&all[20..], &second.known, 100);
        assert_eq!(third.reported.len(), 20, "others follow when some closed");
    }
}
