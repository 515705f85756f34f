use std::time::Duration;

use jiff::Timestamp;
use tidings_core::bus::workload::{Queue, Workload};
use tidings_core::model::time::{after, to_proto};
use tidings_core::wire::{Circuit, Cluster, EdgeBacklog, Heartbeat};

use super::super::reading::DeadLetters;
use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn seconds_ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 - seconds).unwrap()
}

fn process(role: &str, reported_seconds_ago: i64) -> Heartbeat {
    Heartbeat {
        role: role.to_owned(),
        host: format!("host-of-{role}"),
        process: role.to_owned(),
        cluster: matches!(role, "ingest" | "up")
            .then(|| "default".to_owned())
            .unwrap_or_default(),
        pool: matches!(role, "worker" | "up")
            .then(|| "default".to_owned())
            .unwrap_or_default(),
        at: Some(to_proto(seconds_ago(reported_seconds_ago))),
        ready: true,
        ..Heartbeat::default()
    }
}

/// All is well.
fn well() -> Reading {
    Reading {
        now: now(),
        heartbeats: vec![
            process("ingest", 1),
            process("router", 2),
            process("worker", 3),
        ],
        ..Reading::default()
    }
}

fn codes(reading: &Reading) -> Vec<&'static str> {
    codes_knowing(reading, 0)
}

fn codes_knowing(reading: &Reading, known_losses: u64) -> Vec<&'static str> {
    let report = Report::new(reading, Known { known_losses });
    report.problems.iter().map(|problem| problem.code).collect()
}

fn waiting(pool: &str) -> Workload {
    let queue = Queue {
        ready: 3,
        unacknowledged: 0,
    };
    Workload {
        queues: [((pool.to_owned(), "slack".to_owned()), queue)].into(),
        ..Workload::default()
    }
}

#[test]
fn a_role_that_nobody_runs_is_a_problem_and_up_runs_all() {
    assert_eq!(codes(&well()), [""; 0]);
    let up = Reading {
        heartbeats: vec![process("up", 20)],
        ..well()
    };
    assert_eq!(codes(&up), [""; 0]);
    let none = Reading {
        heartbeats: Vec::new(),
        ..well()
    };
    assert_eq!(codes(&none), ["no-ingest", "no-router", "no-worker"]);
    let mut silent = well();
    silent.heartbeats[2] = process("worker", 21);
    assert_eq!(codes(&silent), ["no-worker"]);
    let report = Report::new(&silent, Known::default());
    let message = &report.problems[0].message;
    assert!(
        message.contains("host-of-worker") && message.contains("21 s"),
        "{message}"
    );
}

#[test]
fn a_running_process_that_is_not_ready_is_a_problem_with_its_reason() {
    let mut reading = well();
    reading.heartbeats[1].ready = false;
    reading.heartbeats[1].reason = "rules: not started yet".to_owned();
    let report = Report::new(&reading, Known::default());
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].code, "not-ready");
    assert!(
        report.problems[0]
            .message
            .contains("rules: not started yet")
    );
    // A process that ended is not ready either.
    reading.heartbeats[1].at = Some(to_proto(seconds_ago(100)));
    assert_eq!(codes(&reading), ["no-router"]);
}

#[test]
fn a_pool_needs_a_worker_while_deliveries_wait() {
    for (pool, expected) in [("default", &[][..]), ("eu", &["pool-without-worker"])] {
        let reading = Reading {
            workload: waiting(pool),
            ..well()
        };
        assert_eq!(codes(&reading), expected, "{pool}");
    }
}

#[test]
fn a_cluster_needs_an_ingest_unless_it_is_revoked() {
    let cluster = |revoked_at| Cluster {
        name: "prod".to_owned(),
        revoked_at,
        ..Cluster::default()
    };
    let with = |cluster| Reading {
        clusters: [("prod".to_owned(), cluster)].into(),
        ..well()
    };
    assert_eq!(codes(&with(cluster(None))), ["cluster-without-ingest"]);
    let revoked = cluster(Some(to_proto(now())));
    assert_eq!(codes(&with(revoked)), [""; 0]);
    let mut reading = with(cluster(None));
    reading.heartbeats.push(Heartbeat {
        cluster: "prod".to_owned(),
        ..process("ingest", 5)
    });
    assert_eq!(codes(&reading), [""; 0]);
}

#[test]
fn a_long_wait_is_a_problem() {
    for (seconds, expected) in [(59, &[][..]), (60, &["deliveries-wait"])] {
        let workload = Workload {
            oldest_ready: Duration::from_secs(seconds),
            ..waiting("default")
        };
        let reading = Reading { workload, ..well() };
        assert_eq!(codes(&reading), expected, "{seconds}");
    }
}

#[test]
fn an_open_circuit_is_a_problem_and_a_pause_is_none() {
    for (state, expected) in [
        (State::Open, &["circuit-open"][..]),
        (State::HalfOpen, &["circuit-open"]),
        (State::Paused, &[]),
    ] {
        let circuit = Circuit {
            namespace: "apps".to_owned(),
            provider: "chat".to_owned(),
            state: state.into(),
            reason: "HTTP 503".to_owned(),
            ..Circuit::default()
        };
        let reading = Reading {
            circuits: vec![circuit],
            ..well()
        };
        assert_eq!(codes(&reading), expected, "{state:?}");
        let report = Report::new(&reading, Known::default());
        assert_eq!(report.circuits[0]["reason"], "HTTP 503");
    }
}

#[test]
fn the_next_attempt_of_a_circuit_is_due_after_its_time() {
    for (until, expected) in [
        (None, None),
        (Some(seconds_ago(1)), Some("due".to_owned())),
        (Some(seconds_ago(0)), Some("due".to_owned())),
        (
            Some(seconds_ago(-1)),
            Some("2027-01-15T08:00:01.000Z".to_owned()),
        ),
    ] {
        let circuit = Circuit {
            state: State::Open.into(),
            until: until.map(to_proto),
            ..Circuit::default()
        };
        assert_eq!(next_attempt(&circuit, now()), expected);
    }
}

#[test]
fn dead_letters_losses_and_credentials_are_problems() {
    let dead_letters = DeadLetters {
        count: 2,
        last_at: Some(now()),
    };
    let mut reading = Reading {
        dead_letters,
        lost: 3,
        ..well()
    };
    let day = Duration::from_secs(24 * 3600);
    reading.heartbeats[0].credentials_expire_at = Some(to_proto(after(now(), 13 * day)));
    reading.heartbeats[1].credentials_expire_at = Some(to_proto(after(now(), 15 * day)));
    let all = ["dead-letters", "lost-deliveries", "credentials-expire"];
    assert_eq!(codes(&reading), all);
    assert_eq!(codes_knowing(&reading, 2), all);
    assert_eq!(codes_knowing(&reading, 3), [all[0], all[2]]);
}

#[test]
fn a_certificate_that_expires_within_a_week_is_a_problem() {
    let mut reading = well();
    let hour = Duration::from_secs(3600);
    let mut at = |time| {
        reading.heartbeats[0].certificate_expires_at = Some(to_proto(time));
        codes(&reading)
    };
    assert_eq!(at(after(now(), 8 * 24 * hour)), [""; 0]);
    assert_eq!(at(after(now(), 6 * 24 * hour)), ["certificate-expires"]);
    assert_eq!(at(now()), ["certificate-expires"]);
}

#[test]
fn many_problems_of_a_kind_are_bounded() {
    let mut reading = well();
    for number in 0..100 {
        let name = format!("member-{number}");
        let cluster = Cluster {
            name: name.clone(),
            ..Cluster::default()
        };
        reading.clusters.insert(name, cluster);
    }
    assert_eq!(codes(&reading).len(), MOST_OF_A_CODE + 1);
}

#[test]
fn an_edge_whose_events_wait_for_a_minute_is_a_problem() {
    for (oldest_ms, reported_seconds_ago, expected) in [
        (59_999, 1, &[][..]),
        (60_000, 1, &["edge-behind"]),
        (60_000, 30, &["no-ingest", "cluster-without-ingest"]),
    ] {
        let mut reading = well();
        reading.heartbeats[0] = Heartbeat {
            edge: Some(EdgeBacklog {
                waiting: 7,
                oldest_ms,
            }),
            ..process("ingest", reported_seconds_ago)
        };
        assert_eq!(codes(&reading), expected, "{oldest_ms}");
    }
}

/// An edge of the cluster `default` on a host.
fn edge(host: &str, waiting: u64, oldest_ms: u64, reported_seconds_ago: i64) -> Heartbeat {
    Heartbeat {
        host: host.to_owned(),
        process: format!("{host} {waiting}"),
        edge: Some(EdgeBacklog { waiting, oldest_ms }),
        ..process("ingest", reported_seconds_ago)
    }
}

#[test]
fn all_edges_of_a_cluster_count() {
    for (edges, expected) in [
        (
            vec![edge("a", 3, 9_000, 1), edge("b", 4, 70_000, 2)],
            (7, 70),
        ),
        // One that does not run has still stored its events.
        (
            vec![edge("a", 3, 9_000, 1), edge("b", 4, 70_000, 50)],
            (7, 70),
        ),
    ] {
        let mut reading = well();
        reading.heartbeats.extend(edges);
        let report = Report::new(&reading, Known::default());
        let sum = report.clusters[0].edge.as_ref().unwrap();
        assert_eq!((sum.waiting, sum.oldest_seconds), expected);
    }
    assert_eq!(
        Report::new(&well(), Known::default()).clusters[0].edge,
        None
    );
}

#[test]
fn a_ready_process_that_gives_a_reason_works_in_part() {
    let mut reading = well();
    reading.heartbeats[1].reason = "rules: cluster us cannot be read".to_owned();
    assert_eq!(codes(&reading), ["works-in-part"]);
    let report = Report::new(&reading, Known::default());
    assert!(report.problems[0].message.contains("cluster us"));
    // One that is not ready, or ended, is another problem.
    reading.heartbeats[1].ready = false;
    assert_eq!(codes(&reading), ["not-ready"]);
    reading.heartbeats[1] = Heartbeat {
        ready: true,
        at: Some(to_proto(seconds_ago(100))),
        ..reading.heartbeats[1].clone()
    };
    assert_eq!(codes(&reading), ["no-router"]);
}

#[test]
fn some_processes_of_a_role_in_shadow_mode_are_a_problem() {
    let with = |role: &str, shadow: bool, reported_seconds_ago| Heartbeat {
        process: format!("another {role}"),
        shadow,
        ..process(role, reported_seconds_ago)
    };
    let mixed = &["shadow-mode-mixed"][..];
    for (what, more, expected) in [
        ("routers", vec![with("router", true, 1)], mixed),
        ("workers", vec![with("worker", true, 1)], mixed),
        (
            "both",
            vec![with("router", true, 1), with("worker", true, 1)],
            mixed,
        ),
        (
            "ingests have no such mode",
            vec![with("ingest", true, 1)],
            &[],
        ),
        ("a router that ended", vec![with("router", true, 100)], &[]),
        ("none", vec![with("router", false, 1)], &[]),
        ("`up` is a router too", vec![with("up", true, 1)], mixed),
    ] {
        let mut reading = well();
        reading.heartbeats.extend(more);
        let mut found = codes(&reading);
        found.dedup();
        assert_eq!(found, expected, "{what}");
    }
    let mut all = well();
    for report in &mut all.heartbeats {
        report.shadow = true;
    }
    assert_eq!(codes(&all), [""; 0]);
}
