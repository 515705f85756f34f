//! A destination's circuit: whether it is called, as a pure decision that all workers share.
//!
//! ```text
//!             failures in a row, or asked to wait
//!   closed ──────────────────────────────────────► open ◄───────┐
//!     ▲                                              │ `until`   │ it failed: the next wait is longer
//!     └───────────── the probe was answered ──── half-open ──────┘
//! ```
//!
//! A pause by hand is a record of its own, for the whole Provider, and goes before the circuits of
//! its channels.

use std::time::Duration;

use jiff::Timestamp;
use tidings_proto::Timestamp as ProtoTimestamp;
use tidings_proto::v1::Circuit;
use tidings_proto::v1::circuit::State;

use crate::model::jitter::jittered;
use crate::model::retry::RetryPolicy;
use crate::model::time::{self, after, between, to_proto};

/// So many failures in a row, of all workers together, open a circuit.
pub const MOST_FAILURES: u32 = 5;
/// The longest wait for a probe that the service did not ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A circuit that opens again this soon goes on with the waits it had.
const FLAPS_WITHIN: Duration = Duration::from_secs(60);

/// What a circuit means for a delivery at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitDecision {
    /// It may go.
    Closed,
    /// Nobody may before this time.
    Blocked(Timestamp),
    /// One may, as the probe.
    ProbeDue,
    /// Nobody may before it is resumed by hand.
    Paused,
}

/// What a call has shown of its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It works: whatever it said, it answered.
    Answered,
    /// It failed in a way that may pass. The sentence holds no secret.
    Failed(String),
    /// It asks to be left alone for so long.
    AskedToWait(Duration, String),
}

/// What the circuit means for a delivery at hand.
pub fn standing(circuit: &Circuit, now: Timestamp) -> CircuitDecision {
    let until = time(circuit.until);
    match circuit.state() {
        State::Closed => CircuitDecision::Closed,
        State::Paused => CircuitDecision::Paused,
        State::Open | State::HalfOpen if until <= now => CircuitDecision::ProbeDue,
        State::Open | State::HalfOpen => CircuitDecision::Blocked(until),
    }
}

/// Whether it was closed by hand, or its record is gone: no probe was answered.
pub fn is_resumed(circuit: &Circuit) -> bool {
    circuit.state() == State::Closed && circuit.openings == 0
}

/// Whether nothing of it is news: it has been closed for long, and its last call was answered.
pub fn is_long_well(circuit: &Circuit, now: Timestamp) -> bool {
    let is_well = circuit.state() == State::Closed && circuit.failures == 0;
    is_well && !flaps(circuit, now)
}

/// The circuit after what calls without a probe have shown, oldest first; nothing where that
/// changes nothing. `random` is in 0..1 and spreads the probes.
pub fn observed(
    circuit: &Circuit,
    seen: &[CallResult],
    retry: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> Option<Circuit> {
    let mut next = circuit.clone();
    for seen in seen {
        match (next.state(), seen) {
            (State::Closed, CallResult::Answered) => {
                next.failures = 0;
                next.reason.clear();
            }
            (State::Closed, CallResult::Failed(reason)) => {
                next.failures += 1;
                next.reason.clone_from(reason);
                if next.failures >= MOST_FAILURES {
                    open(&mut next, now, retry, random, None);
                }
            }
            (State::Closed, CallResult::AskedToWait(wait, reason)) => {
                next.reason.clone_from(reason);
                open(&mut next, now, retry, random, Some(*wait));
            }
            (State::Open, CallResult::AskedToWait(wait, reason)) => {
                let until = after(now, (*wait).min(retry.max_age));
                if until > time(next.until) {
                    (next.until, next.reason, next.probe) =
                        (Some(to_proto(until)), reason.clone(), String::new());
                }
            }
            // These calls began before it opened: what is true now, the probe will show.
            (State::Open | State::HalfOpen | State::Paused, _) => {}
        }
    }
    (next != *circuit).then_some(next)
}

/// The circuit while `holder` probes, for so long at most.
pub fn probing(circuit: &Circuit, holder: &str, lasts: Duration, now: Timestamp) -> Circuit {
    let until = Some(to_proto(after(now, lasts)));
    Circuit {
        state: State::HalfOpen.into(),
        probe: holder.to_owned(),
        until,
        ..circuit.clone()
    }
}

/// The circuit after the probe of `holder`; nothing where the probe is another's by now.
pub fn probed(
    circuit: &Circuit,
    holder: &str,
    seen: &CallResult,
    retry: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> Option<Circuit> {
    if circuit.state() != State::HalfOpen || circuit.probe != holder {
        return None;
    }
    let mut next = circuit.clone();
    match seen {
        CallResult::Answered => close(&mut next, now),
        CallResult::Failed(reason) => {
            next.failures += 1;
            next.reason.clone_from(reason);
            open(&mut next, now, retry, random, None);
        }
        CallResult::AskedToWait(wait, reason) => {
            next.reason.clone_from(reason);
            open(&mut next, now, retry, random, Some(*wait));
        }
    }
    Some(next)
}

/// The open circuit with the place of the parked delivery that is to be its next probe.
pub fn awaiting(circuit: &Circuit, place: &str) -> Circuit {
    Circuit {
        probe: place.to_owned(),
        ..circuit.clone()
    }
}

/// A Provider that is paused by hand.
pub fn paused(circuit: &Circuit, reason: &str, now: Timestamp) -> Circuit {
    Circuit {
        state: State::Paused.into(),
        since: Some(to_proto(now)),
        reason: reason.to_owned(),
        ..circuit.clone()
    }
}

/// The circuit closed by hand: a pause that ends, or an open circuit that need not wait for its
/// probe.
pub fn resumed(circuit: &Circuit, now: Timestamp) -> Circuit {
    let mut next = circuit.clone();
    close(&mut next, now);
    next.openings = 0;
    next
}

/// The word for a state in metrics, status and output.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
        State::Paused => "paused",
    }
}

fn open(
    circuit: &mut Circuit,
    now: Timestamp,
    retry: &RetryPolicy,
    random: f64,
    asked: Option<Duration>,
) {
    if circuit.state() == State::Closed {
        circuit.openings = if flaps(circuit, now) {
            circuit.openings
        } else {
            0
        };
        circuit.since = Some(to_proto(now));
    }
    circuit.openings = circuit.openings.saturating_add(1);
    let wait = asked.map_or_else(
        || backoff(retry, circuit.openings, random),
        |asked| asked.min(retry.max_age),
    );
    circuit.until = Some(to_proto(after(now, wait)));
    circuit.state = State::Open.into();
    circuit.probe.clear();
}

fn flaps(circuit: &Circuit, now: Timestamp) -> bool {
    between(time(circuit.since), now) < FLAPS_WITHIN
}

/// The record of a closed circuit keeps how often it has opened, in case that it does again at
/// once.
fn close(circuit: &mut Circuit, now: Timestamp) {
    circuit.state = State::Closed.into();
    circuit.since = Some(to_proto(now));
    circuit.until = None;
    circuit.failures = 0;
    circuit.reason.clear();
    circuit.probe.clear();
}

/// Doubles from the Provider's `retry.min` to its `retry.max`, two minutes at most; the upper half
/// of it is random.
fn backoff(retry: &RetryPolicy, openings: u32, random: f64) -> Duration {
    let most = retry.max.min(LONGEST_WAIT).max(retry.min);
    let bound = retry
        .min
        .saturating_mul(1 << (openings - 1).min(30))
        .min(most);
    jittered(bound, random)
}

/// A circuit without the field has passed that time long ago.
fn time(time: Option<ProtoTimestamp>) -> Timestamp {
    time::from_proto(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::destination::Destination;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failed() -> CallResult {
        CallResult::Failed("h answered 503".into())
    }

    fn observe(circuit: &Circuit, seen: &[CallResult], second: i64) -> Circuit {
        observed(circuit, seen, &RetryPolicy::default(), at(second), 1.0)
            .unwrap_or_else(|| circuit.clone())
    }

    fn opened(second: i64) -> Circuit {
        observe(
            &Destination::channel("apps", "hook", "").closed(),
            &[failed(), failed(), failed(), failed(), failed()],
            second,
        )
    }

    fn probe(circuit: &Circuit, seen: &CallResult, second: i64) -> Circuit {
        let half_open = probing(circuit, "me", Duration::from_secs(20), at(second));
        probed(
            &half_open,
            "me",
            seen,
            &RetryPolicy::default(),
            at(second),
            1.0,
        )
        .expect("the probe is mine")
    }

    #[test]
    fn failures_in_a_row_open_it_whoever_reports_them() {
        let closed = Circuit::default();
        let four = observe(
            &observe(&closed, &[failed(), failed()], 1000),
            &[failed(), failed()],
            1001,
        );
        assert_eq!(
            (standing(&four, at(1001)), four.failures),
            (CircuitDecision::Closed, 4)
        );
        let open = observe(&four, &[failed()], 1002);
        assert_eq!(
            standing(&open, at(1002)),
            CircuitDecision::Blocked(at(1004))
        );
        assert_eq!(
            (open.reason.as_str(), open.since.unwrap().seconds),
            ("h answered 503", 1002)
        );
    }

    #[test]
    fn an_answer_between_failures_begins_the_count_anew() {
        let circuit = observe(
            &Circuit::default(),
            &[
                failed(),
                failed(),
                failed(),
                CallResult::Answered,
                failed(),
                failed(),
            ],
            1000,
        );
        assert_eq!(circuit.failures, 2);
        assert_eq!(
            observed(
                &Circuit::default(),
                &[CallResult::Answered],
                &RetryPolicy::default(),
                at(1000),
                0.0
            ),
            None,
            "no news"
        );
    }

    #[test]
    fn a_service_that_asks_to_wait_is_left_alone_for_as_long() {
        let asked =
            |seconds| CallResult::AskedToWait(Duration::from_secs(seconds), "slow down".into());
        let open = observe(&Circuit::default(), &[asked(90)], 1000);
        assert_eq!(
            standing(&open, at(1089)),
            CircuitDecision::Blocked(at(1090))
        );
        assert_eq!(standing(&open, at(1090)), CircuitDecision::ProbeDue);
        let waiting = awaiting(&open, "d");
        assert_eq!(
            observe(&waiting, &[asked(30)], 1010),
            waiting,
            "an earlier end is no news"
        );
        let longer = observe(&waiting, &[asked(120)], 1010);
        assert_eq!(
            (standing(&longer, at(1100)), longer.probe.as_str()),
            (CircuitDecision::Blocked(at(1130)), "")
        );
    }

    #[test]
    fn calls_that_began_before_it_opened_change_nothing() {
        let open = opened(1000);
        assert_eq!(
            observe(&open, &[CallResult::Answered, failed()], 1001),
            open
        );
    }

    #[test]
    fn one_probes_and_the_others_are_blocked_until_it_ends_or_is_lost() {
        let half_open = probing(&opened(1000), "me", Duration::from_secs(20), at(1010));
        assert_eq!(
            standing(&half_open, at(1029)),
            CircuitDecision::Blocked(at(1030))
        );
        assert_eq!(standing(&half_open, at(1030)), CircuitDecision::ProbeDue);
        assert_eq!(
            probed(
                &half_open,
                "another",
                &CallResult::Answered,
                &RetryPolicy::default(),
                at(1011),
                0.0
            ),
            None
        );
    }

    #[test]
    fn a_probe_that_is_answered_closes_it_and_one_that_fails_makes_the_next_wait_longer() {
        let open = opened(1000);
        assert_eq!(
            standing(&probe(&open, &CallResult::Answered, 1002), at(1002)),
            CircuitDecision::Closed
        );
        let mut circuit = open;
        for wait in [4, 8, 16, 32, 64, 120, 120] {
            circuit = probe(&circuit, &failed(), 2000);
            assert_eq!(
                standing(&circuit, at(2000)),
                CircuitDecision::Blocked(at(2000 + wait))
            );
        }
        assert_eq!(
            circuit.since.unwrap().seconds,
            1000,
            "it has been away since then"
        );
    }

    #[test]
    fn one_that_opens_again_at_once_goes_on_with_its_waits() {
        let closed = probe(
            &probe(&opened(1000), &failed(), 1002),
            &CallResult::Answered,
            1006,
        );
        let fails = [failed(), failed(), failed(), failed(), failed()];
        assert_eq!(observe(&closed, &fails, 1030).openings, 3);
        assert_eq!(observe(&closed, &fails, 1070).openings, 1);
    }

    #[test]
    fn what_has_closed_a_while_ago_and_does_not_fail_is_no_news() {
        let closed = probe(&opened(1000), &CallResult::Answered, 1002);
        assert!(!is_long_well(&closed, at(1061)) && is_long_well(&closed, at(1062)));
        assert!(
            !is_long_well(&opened(1000), at(9000))
                && !is_long_well(&observe(&closed, &[failed()], 2000), at(9000))
        );
    }

    #[test]
    fn a_pause_holds_until_it_is_resumed() {
        let paused = paused(
            &Destination::whole("apps", "hook").closed(),
            "maintenance",
            at(1000),
        );
        assert_eq!(standing(&paused, at(1_000_000)), CircuitDecision::Paused);
        assert_eq!(
            observe(&paused, &[CallResult::Answered, failed()], 1001),
            paused
        );
        assert_eq!(
            standing(&resumed(&paused, at(1001)), at(1001)),
            CircuitDecision::Closed
        );
    }

    #[test]
    fn who_closes_it_can_be_told() {
        let answered = probe(&opened(1000), &CallResult::Answered, 1002);
        assert!(
            is_resumed(&resumed(&opened(1000), at(1001)))
                && !is_resumed(&answered)
                && !is_resumed(&opened(1000))
        );
    }
}
