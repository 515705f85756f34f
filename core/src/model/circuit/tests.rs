use super::*;
use crate::model::destination::Destination;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn failed() -> CallResult {
    CallResult::Failed("h answered 503".into())
}

fn call(circuit: &Circuit, results: &[CallResult], second: i64) -> Circuit {
    after_calls(circuit, results, &RetryPolicy::default(), at(second), 1.0)
        .unwrap_or_else(|| circuit.clone())
}

fn opened(second: i64) -> Circuit {
    call(
        &Destination::channel("apps", "hook", "").closed(),
        &[failed(), failed(), failed(), failed(), failed()],
        second,
    )
}

fn probe(circuit: &Circuit, result: &CallResult, second: i64) -> Circuit {
    let half_open = with_probe(circuit, "me", "p", Duration::from_secs(20), at(second));
    after_probe(
        &half_open,
        "me",
        result,
        &RetryPolicy::default(),
        at(second),
        1.0,
    )
    .expect("the probe is mine")
}

#[test]
fn failures_in_a_row_of_several_workers_open_the_circuit() {
    let closed = Circuit::default();
    let four = call(
        &call(&closed, &[failed(), failed()], 1000),
        &[failed(), failed()],
        1001,
    );
    assert_eq!(
        (decide(&four, at(1001)), four.failures),
        (CircuitDecision::Closed, 4)
    );
    let open = call(&four, &[failed()], 1002);
    assert_eq!(decide(&open, at(1002)), CircuitDecision::Blocked(at(1004)));
    assert_eq!(
        (open.reason.as_str(), open.since.unwrap().seconds),
        ("h answered 503", 1002)
    );
}

#[test]
fn an_answer_resets_the_count_of_failures() {
    let circuit = call(
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
        after_calls(
            &Circuit::default(),
            &[CallResult::Answered],
            &RetryPolicy::default(),
            at(1000),
            0.0
        ),
        None,
        "nothing changes"
    );
}

fn asked_to_wait(seconds: u64, is_cut: bool) -> CallResult {
    CallResult::AskedToWait {
        wait: Duration::from_secs(seconds),
        is_cut,
        reason: "slow down".into(),
    }
}

#[test]
fn a_requested_wait_never_shortens_the_backoff_and_counts_as_a_failure() {
    let mut circuit = call(&Circuit::default(), &[asked_to_wait(0, false)], 1000);
    assert_eq!(circuit.failures, 1);
    for (failures, wait) in [(2, 4), (3, 8), (4, 16)] {
        circuit = probe(&circuit, &asked_to_wait(0, false), 1100);
        assert_eq!(
            (decide(&circuit, at(1100)), circuit.failures),
            (CircuitDecision::Blocked(at(1100 + wait)), failures)
        );
    }
}

#[test]
fn of_absurd_waits_the_shortest_counts_so_that_the_oldest_delivery_gets_its_last_attempt() {
    let open = call(&Circuit::default(), &[asked_to_wait(9_000, true)], 1000);
    let shorter = call(&open, &[asked_to_wait(5_000, true)], 1000);
    for circuit in [
        shorter.clone(),
        call(&shorter, &[asked_to_wait(7_000, true)], 1000),
    ] {
        assert_eq!(
            decide(&circuit, at(1000)),
            CircuitDecision::Blocked(at(6000))
        );
    }
}

#[test]
fn a_wait_that_the_service_requests_opens_the_circuit_for_that_time() {
    let asked = |seconds| asked_to_wait(seconds, false);
    let open = call(&Circuit::default(), &[asked(90)], 1000);
    assert_eq!(decide(&open, at(1089)), CircuitDecision::Blocked(at(1090)));
    assert_eq!(decide(&open, at(1090)), CircuitDecision::ProbeDue);
    let waiting = with_next_probe(&open, "d");
    assert_eq!(
        call(&waiting, &[asked(30)], 1010),
        waiting,
        "an earlier end changes nothing"
    );
    let longer = call(&waiting, &[asked(120)], 1010);
    assert_eq!(
        (decide(&longer, at(1100)), longer.probe.as_str()),
        (CircuitDecision::Blocked(at(1130)), "")
    );
}

#[test]
fn calls_that_began_before_the_circuit_opened_change_nothing() {
    let open = opened(1000);
    assert_eq!(call(&open, &[CallResult::Answered, failed()], 1001), open);
}

#[test]
fn a_probe_blocks_all_other_deliveries() {
    let half_open = with_probe(&opened(1000), "me", "p", Duration::from_secs(20), at(1010));
    assert_eq!(
        decide(&half_open, at(1029)),
        CircuitDecision::Blocked(at(1030))
    );
    assert_eq!(decide(&half_open, at(1030)), CircuitDecision::ProbeDue);
    assert_eq!(
        after_probe(
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
fn an_answered_probe_closes_the_circuit_and_a_failed_one_doubles_the_wait() {
    let open = opened(1000);
    assert_eq!(
        decide(&probe(&open, &CallResult::Answered, 1002), at(1002)),
        CircuitDecision::Closed
    );
    let mut circuit = open;
    for wait in [4, 8, 16, 32, 64, 120, 120] {
        circuit = probe(&circuit, &failed(), 2000);
        assert_eq!(
            decide(&circuit, at(2000)),
            CircuitDecision::Blocked(at(2000 + wait))
        );
    }
    assert_eq!(
        circuit.since.unwrap().seconds,
        1000,
        "when the circuit first opened"
    );
}

#[test]
fn after_a_short_outage_the_next_probe_is_soon() {
    let mut circuit = opened(1000);
    for (second, wait) in [(1002, 2), (1010, 2), (1020, 4), (1040, 8)] {
        circuit = probe(&circuit, &failed(), second);
        assert_eq!(
            decide(&circuit, at(second)),
            CircuitDecision::Blocked(at(second + wait)),
            "a fifth of the outage, and at least retry.min"
        );
    }
}

#[test]
fn after_the_process_of_a_probe_died_another_probe_is_due_at_once() {
    let half_open = with_probe(&opened(1000), "me", "p", Duration::from_secs(65), at(1010));
    assert_eq!(without_probe(&half_open, "another", at(1016)), None);
    let open = without_probe(&half_open, "me", at(1016)).expect("it is mine");
    assert_eq!(decide(&open, at(1016)), CircuitDecision::ProbeDue);
    assert_eq!(overdue(&open, at(1019)), Some(Duration::from_secs(3)));
    assert_eq!(overdue(&half_open, at(1019)), None);
    assert_eq!(
        (open.failures, open.openings, open.since),
        (half_open.failures, half_open.openings, half_open.since)
    );
}

#[test]
fn a_closed_circuit_owes_its_wake_up_until_that_is_done() {
    let closed = probe(&opened(1000), &CallResult::Answered, 1002);
    assert!(!is_idle(&closed, at(9000)), "nobody forgets it");
    let pending = closed.wake_up.clone().expect("a wake-up is pending");
    assert_eq!(
        (pending.holder.as_str(), pending.whole_provider),
        ("me", false)
    );
    assert_eq!(pending.process.unwrap().process, "p");

    assert_eq!(with_wake_up(&closed, "another", "b", "q", at(1010)), None);
    let taken = with_wake_up(&closed, "me", "b", "q", at(1010)).expect("`me` is dead");
    assert_eq!(
        after_wake_up(&taken, "me"),
        None,
        "another one carries it out"
    );
    let done = after_wake_up(&taken, "b").expect("it is done");
    assert_eq!((done.state(), done.wake_up), (State::Closed, None));

    let fails = [failed(), failed(), failed(), failed(), failed()];
    let open = call(&closed, &fails, 1030);
    assert_eq!(
        open.wake_up, None,
        "it is pending when the circuit closes again"
    );
    let resumed = resumed(&open, true, at(1040));
    assert!(
        resumed
            .wake_up
            .is_some_and(|pending| pending.whole_provider)
    );
    assert_eq!(paused(&closed, "why", at(1050)).wake_up, None);
}

#[test]
fn a_circuit_that_opens_again_soon_keeps_its_longer_waits() {
    let closed = probe(
        &probe(&opened(1000), &failed(), 1002),
        &CallResult::Answered,
        1006,
    );
    let fails = [failed(), failed(), failed(), failed(), failed()];
    assert_eq!(call(&closed, &fails, 1030).openings, 3);
    assert_eq!(call(&closed, &fails, 1070).openings, 1);
}

#[test]
fn a_circuit_is_idle_a_minute_after_it_closed() {
    let closed = probe(&opened(1000), &CallResult::Answered, 1002);
    let closed = after_wake_up(&closed, "me").expect("its parked deliveries are woken");
    assert!(!is_idle(&closed, at(1061)) && is_idle(&closed, at(1062)));
    assert!(
        !is_idle(&opened(1000), at(9000)) && !is_idle(&call(&closed, &[failed()], 2000), at(9000))
    );
}

#[test]
fn a_pause_lasts_until_it_is_resumed() {
    let paused = paused(
        &Destination::whole("apps", "hook").closed(),
        "maintenance",
        at(1000),
    );
    assert_eq!(decide(&paused, at(1_000_000)), CircuitDecision::Paused);
    assert_eq!(
        call(&paused, &[CallResult::Answered, failed()], 1001),
        paused
    );
    assert_eq!(
        decide(&resumed(&paused, true, at(1001)), at(1001)),
        CircuitDecision::Closed
    );
}

#[test]
fn a_resumed_circuit_differs_from_one_that_a_probe_closed() {
    let answered = probe(&opened(1000), &CallResult::Answered, 1002);
    assert!(
        is_resumed(&resumed(&opened(1000), false, at(1001)))
            && !is_resumed(&answered)
            && !is_resumed(&opened(1000))
    );
}
