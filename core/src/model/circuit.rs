//! The circuit breaker of a destination. All workers share it. These functions are pure, so that
//! every worker decides the same.
//!
//! ```text
//!           5 failures in a row, or the service asks to wait
//!   closed ─────────────────────────────────────────────────► open ◄────────┐
//!     ▲                                                         │ `until`    │ the probe failed:
//!     │                 the probe was answered                  ▼            │ a longer wait
//!     └───────────────────────────────────────────────────── half-open ──────┘
//! ```
//!
//! A circuit that closes has a pending wake-up of its parked deliveries, and its record says so
//! until that is done. The probe and the wake-up end with their process (`process_lease`). Then
//! another one makes a probe, or carries out the wake-up.
//!
//! A pause by a user is a separate record for the whole Provider. It overrides the circuits of the
//! Provider's channels.

use std::time::Duration;

use jiff::Timestamp;
use tidings_proto::Timestamp as ProtoTimestamp;
use tidings_proto::v1::circuit::State;
use tidings_proto::v1::{Circuit, WakeUp};

use crate::model::jitter::jittered;
use crate::model::process_lease;
use crate::model::retry::RetryPolicy;
use crate::model::time::{self, after, between, to_proto};

/// The number of failures in a row, of all workers together, that opens a circuit.
pub const MAX_FAILURES: u32 = 5;
/// The longest wait for a probe, unless the service requests a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A failed probe adds at most this part of the time since the circuit opened, so that the end of a
/// short outage is noticed soon.
const PART_OF_OUTAGE: u32 = 5;
/// A circuit that opens again within this time after it closed keeps its longer waits.
const FLAP_WINDOW: Duration = Duration::from_secs(60);

/// The holder of the wake-up of a resumed circuit, until a worker takes it.
const RESUMED: &str = "resumed";

/// Whether a delivery may call its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitDecision {
    /// Calls are allowed.
    Closed,
    /// No calls are allowed before this time.
    Blocked(Timestamp),
    /// One worker may make a call, as the probe.
    ProbeDue,
    /// No calls are allowed until a user resumes the destination.
    Paused,
}

/// The result of a call, for the circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The service answered. A rejection is an answer, too.
    Answered,
    /// The call failed transiently. The text contains no secret.
    Failed(String),
    /// The service requests a wait before the next call.
    AskedToWait {
        /// The wait that the service requests, or what the age of its delivery allows.
        wait: Duration,
        /// Whether the service requests more than that
        /// ([`RetryPolicy::longest_wait`]).
        is_cut: bool,
        /// The failure. It contains no secret.
        reason: String,
    },
}

/// Decides whether a delivery may call its destination.
pub fn decide(circuit: &Circuit, now: Timestamp) -> CircuitDecision {
    let until = time_or_epoch(circuit.until);
    match circuit.state() {
        State::Closed => CircuitDecision::Closed,
        State::Paused => CircuitDecision::Paused,
        State::Open | State::HalfOpen if until <= now => CircuitDecision::ProbeDue,
        State::Open | State::HalfOpen => CircuitDecision::Blocked(until),
    }
}

/// Whether a user closed the circuit or deleted its record. `false` if a probe closed it.
pub fn is_resumed(circuit: &Circuit) -> bool {
    circuit.state() == State::Closed && circuit.openings == 0
}

/// Whether the circuit closed at least a minute ago, nothing is left to wake, and its last call did
/// not fail.
pub fn is_idle(circuit: &Circuit, now: Timestamp) -> bool {
    let has_no_failure = circuit.state() == State::Closed && circuit.failures == 0;
    has_no_failure && circuit.wake_up.is_none() && !is_recent(circuit, now)
}

/// How long a probe has been due, if it is.
pub fn overdue(circuit: &Circuit, now: Timestamp) -> Option<Duration> {
    let is_due = decide(circuit, now) == CircuitDecision::ProbeDue;
    is_due.then(|| between(time_or_epoch(circuit.until), now))
}

/// Returns the circuit after calls that were not probes, oldest first. `None` if nothing changes.
/// `random` is in 0..1, for the jitter of the next probe.
pub fn after_calls(
    circuit: &Circuit,
    results: &[CallResult],
    retry: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> Option<Circuit> {
    let mut next = circuit.clone();
    for result in results {
        match (next.state(), result) {
            (State::Closed, CallResult::Answered) => {
                next.failures = 0;
                next.reason.clear();
            }
            (State::Closed, CallResult::Failed(reason)) => {
                next.failures += 1;
                next.reason.clone_from(reason);
                if next.failures >= MAX_FAILURES {
                    open(&mut next, now, retry, random, Duration::ZERO);
                }
            }
            (State::Closed, CallResult::AskedToWait { wait, reason, .. }) => {
                next.failures += 1;
                next.reason.clone_from(reason);
                open(&mut next, now, retry, random, *wait);
            }
            (
                State::Open,
                CallResult::AskedToWait {
                    wait,
                    is_cut,
                    reason,
                },
            ) => {
                let (until, known) = (after(now, *wait), time_or_epoch(next.until));
                // Of waits that were cut the shortest counts, so that the oldest delivery gets its
                // last attempt.
                let is_better = match is_cut {
                    true => until < known,
                    false => until > known,
                };
                if is_better {
                    (next.until, next.reason, next.probe) =
                        (Some(to_proto(until)), reason.clone(), String::new());
                }
            }
            // These calls began before the circuit opened. The probe decides.
            (State::Open | State::HalfOpen | State::Paused, _) => {}
        }
    }
    (next != *circuit).then_some(next)
}

/// Returns the half-open circuit while `holder` probes in this process, for at most `lasts`.
pub fn with_probe(
    circuit: &Circuit,
    holder: &str,
    process: &str,
    lasts: Duration,
    now: Timestamp,
) -> Circuit {
    let until = Some(to_proto(after(now, lasts)));
    Circuit {
        state: State::HalfOpen.into(),
        probe: holder.to_owned(),
        probe_process: Some(process_lease::holder(process, now)),
        until,
        ..circuit.clone()
    }
}

/// Returns the circuit after the process of its probe died: another probe is due. `None` if the
/// probe has another holder now.
pub fn without_probe(circuit: &Circuit, holder: &str, now: Timestamp) -> Option<Circuit> {
    let is_probed = circuit.state() == State::HalfOpen && circuit.probe == holder;
    is_probed.then(|| Circuit {
        state: State::Open.into(),
        probe: String::new(),
        probe_process: None,
        until: Some(to_proto(now)),
        ..circuit.clone()
    })
}

/// Returns the circuit whose wake-up `holder` carries out, after `former` did not finish it. `None`
/// if it has another holder now, or is finished.
pub fn with_wake_up(
    circuit: &Circuit,
    former: &str,
    holder: &str,
    process: &str,
    now: Timestamp,
) -> Option<Circuit> {
    let pending = circuit.wake_up.as_ref()?;
    (pending.holder == former).then(|| Circuit {
        wake_up: Some(WakeUp {
            holder: holder.to_owned(),
            process: Some(process_lease::holder(process, now)),
            ..pending.clone()
        }),
        ..circuit.clone()
    })
}

/// Returns the circuit after `holder` has finished its wake-up. `None` if it has another holder
/// now.
pub fn after_wake_up(circuit: &Circuit, holder: &str) -> Option<Circuit> {
    let pending = circuit.wake_up.as_ref()?;
    (pending.holder == holder).then(|| Circuit {
        wake_up: None,
        ..circuit.clone()
    })
}

/// Returns the circuit after the probe of `holder`. `None` if the probe has another holder now. If
/// the probe was answered, `holder` carries out the wake-up.
pub fn after_probe(
    circuit: &Circuit,
    holder: &str,
    result: &CallResult,
    retry: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> Option<Circuit> {
    if circuit.state() != State::HalfOpen || circuit.probe != holder {
        return None;
    }
    let mut next = circuit.clone();
    match result {
        CallResult::Answered => {
            let process = circuit.probe_process.clone().unwrap_or_default().process;
            close(&mut next, now);
            next.wake_up = Some(WakeUp {
                holder: holder.to_owned(),
                process: Some(process_lease::holder(&process, now)),
                whole_provider: false,
            });
        }
        CallResult::Failed(reason) => {
            next.failures += 1;
            next.reason.clone_from(reason);
            open(&mut next, now, retry, random, Duration::ZERO);
        }
        CallResult::AskedToWait { wait, reason, .. } => {
            next.failures += 1;
            next.reason.clone_from(reason);
            open(&mut next, now, retry, random, *wait);
        }
    }
    Some(next)
}

/// Returns the open circuit with the key of the parked delivery that becomes the next probe.
pub fn with_next_probe(circuit: &Circuit, parking_key: &str) -> Circuit {
    Circuit {
        probe: parking_key.to_owned(),
        ..circuit.clone()
    }
}

/// Returns the circuit of a Provider that a user pauses.
pub fn paused(circuit: &Circuit, reason: &str, now: Timestamp) -> Circuit {
    Circuit {
        state: State::Paused.into(),
        since: Some(to_proto(now)),
        reason: reason.to_owned(),
        wake_up: None,
        ..circuit.clone()
    }
}

/// Returns the circuit after a user resumes it: a pause ends, or an open circuit closes without a
/// probe.
///
/// The user's command wakes the parked deliveries of the Provider. A worker wakes them again after
/// that, because workers may park more before they notice, and the command may be interrupted. Of
/// several circuits of the Provider, one `wakes_provider`.
pub fn resumed(circuit: &Circuit, wakes_provider: bool, now: Timestamp) -> Circuit {
    let mut next = circuit.clone();
    close(&mut next, now);
    next.openings = 0;
    next.wake_up = wakes_provider.then(|| WakeUp {
        holder: RESUMED.to_owned(),
        process: Some(process_lease::holder("", now)),
        whole_provider: true,
    });
    next
}

/// The name of a state in metrics, status and output.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
        State::Paused => "paused",
    }
}

/// Opens the circuit for its own backoff, and at least for the requested wait.
fn open(
    circuit: &mut Circuit,
    now: Timestamp,
    retry: &RetryPolicy,
    random: f64,
    requested: Duration,
) {
    if circuit.state() == State::Closed {
        circuit.openings = if is_recent(circuit, now) {
            circuit.openings
        } else {
            0
        };
        circuit.since = Some(to_proto(now));
    }
    circuit.openings = circuit.openings.saturating_add(1);
    let outage = between(time_or_epoch(circuit.since), now);
    let most = match circuit.state() {
        State::HalfOpen => outage / PART_OF_OUTAGE,
        _ => LONGEST_WAIT,
    };
    let wait = backoff(retry, circuit.openings, most, random).max(requested.min(retry.max_age));
    circuit.until = Some(to_proto(after(now, wait)));
    circuit.state = State::Open.into();
    circuit.probe.clear();
    circuit.probe_process = None;
    circuit.wake_up = None;
}

fn is_recent(circuit: &Circuit, now: Timestamp) -> bool {
    between(time_or_epoch(circuit.since), now) < FLAP_WINDOW
}

/// A closed circuit keeps `openings`, in case it opens again soon.
fn close(circuit: &mut Circuit, now: Timestamp) {
    circuit.state = State::Closed.into();
    circuit.since = Some(to_proto(now));
    circuit.until = None;
    circuit.failures = 0;
    circuit.reason.clear();
    circuit.probe.clear();
    circuit.probe_process = None;
}

/// The wait for a probe. It doubles from the Provider's `retry.min` to its `retry.max`, at most two
/// minutes and at most `most`, with jitter.
fn backoff(retry: &RetryPolicy, openings: u32, most: Duration, random: f64) -> Duration {
    let most = retry.max.min(LONGEST_WAIT).min(most).max(retry.min);
    let bound = retry
        .min
        .saturating_mul(1 << (openings - 1).min(30))
        .min(most);
    jittered(bound, random)
}

/// A missing time counts as long past.
fn time_or_epoch(time: Option<ProtoTimestamp>) -> Timestamp {
    time::from_proto(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
