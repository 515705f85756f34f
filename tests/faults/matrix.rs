//! A process dies at each fail point on the bus, and every event is accounted for.
//!
//! Each run has every kind of destination. Its first worker is killed, so that some messages are
//! redelivered. Then one process dies at the fail point. A run fails if the point is not reached.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;
use tidings_core::bus::streams::{DELIVERIES, worker_consumer};
use tidings_core::runtime::failpoint::BUS_POINTS;
use tidings_rig::{
    Ledger, Manifest, Process, Receiver, Reply, Rig, Role, alert, eventually, provider, secret,
};

use crate::TIDINGS;

const KILLED: i32 = 9;
/// The number of concurrent runs, which mostly wait.
const PARALLEL_RUNS: usize = 3;
/// The deliveries of a dead worker are redelivered after this time.
const ACK_WAIT: Duration = Duration::from_secs(4);
/// The number of events that are posted before the first worker dies.
const EARLY: usize = 3;
/// The first worker and the armed process die.
const DEATHS: usize = 2;

#[tokio::test]
async fn a_process_that_dies_at_any_fail_point_loses_nothing() {
    let run = |point: &'static &'static str| async move {
        (
            *point,
            AssertUnwindSafe(dies_at(point))
                .catch_unwind()
                .await
                .is_err(),
        )
    };
    let runs = futures::stream::iter(BUS_POINTS)
        .map(run)
        .buffer_unordered(PARALLEL_RUNS);
    let failed: Vec<&str> = runs
        .filter_map(|(point, failed)| async move { failed.then_some(point) })
        .collect()
        .await;
    assert!(
        failed.is_empty(),
        "{failed:?} of {} points failed; see the output above",
        BUS_POINTS.len()
    );
}

/// The destinations of a run: one that accepts everything, one that fails every other time, one
/// that rejects everything, one with a rate limit, one where the newest state wins, and one that is
/// created after its deliveries are planned.
struct Destinations {
    healthy: Receiver,
    failing: Receiver,
    strict: Receiver,
    limited: Receiver,
    incidents: Receiver,
    late: Receiver,
}

impl Destinations {
    async fn start(rig: &Rig) -> Self {
        let healthy = Receiver::script([Reply::Stall; EARLY]).await;
        let [failing, strict] = [Receiver::start().await, Receiver::start().await];
        let [limited, incidents, late] = [
            Receiver::start().await,
            Receiver::start().await,
            Receiver::start().await,
        ];
        failing.answer_in_turn([Reply::Status(503), Reply::Status(200)]);
        strict.answer_with(Reply::Status(400));
        let generic =
            |name: &str, receiver: &Receiver| provider(name, receiver.url()).that_retries_soon();
        rig.rules()
            .put([secret("key", json!({"token": "hidden-token"}))]);
        rig.rules().put([
            generic("healthy", &healthy),
            generic("failing", &failing),
            generic("strict", &strict),
            generic("limited", &limited).with("rateLimit", "5/1s"),
            generic("incidents", &incidents)
                .with("type", "incident.io")
                .with("secretRef", json!({"name": "key"}))
                .with("timeout", "1s"),
        ]);
        rig.rules().put(
            [
                "healthy",
                "failing",
                "strict",
                "limited",
                "incidents",
                "late",
            ]
            .map(|name| alert(name, name)),
        );
        Self {
            healthy,
            failing,
            strict,
            limited,
            incidents,
            late,
        }
    }

    fn late(&self) -> Manifest {
        provider("late", self.late.url()).that_retries_soon()
    }
}

async fn dies_at(point: &'static str) {
    let rig = Rig::start(TIDINGS).await;
    let destinations = Destinations::start(&rig).await;
    let [ingest, router, worker] =
        ["ingest:", "router:", "worker:"].map(|prefix| point.starts_with(prefix));
    // Ingest and router must not die before the first worker has its early events.
    let time = if worker { 1 } else { EARLY + 1 };
    let armed = |role: Role| role.env("FAIL_POINT", &format!("{point}@{time}"));
    let mut router = rig.spawn(if router {
        armed(Role::router())
    } else {
        Role::router()
    });
    shorten_ack_wait(&rig).await;
    let mut ingest = rig.spawn(if ingest {
        armed(Role::ingest())
    } else {
        Role::ingest()
    });
    let mut first_worker = rig.spawn(Role::worker());
    for process in [&router, &ingest, &first_worker] {
        process.ready().await;
    }
    let mut ledger = Ledger::default();
    for number in 0..EARLY {
        ledger.post(&ingest, &format!("early {number}")).await;
    }
    destinations.healthy.receives(EARLY).await;
    first_worker.kill().await;

    let mut worker = rig.spawn(if worker {
        armed(Role::worker())
    } else {
        Role::worker()
    });
    for number in 0..7 {
        ledger.post(&ingest, &format!("late {number}")).await;
    }
    rig.rules().put([destinations.late()]);
    let dying = match point.split_once(':') {
        Some(("ingest", _)) => &mut ingest,
        Some(("router", _)) => &mut router,
        _ => &mut worker,
    };
    dies_and_restarts(dying, point).await;
    let all = (0..EARLY)
        .map(|number| format!("early {number}"))
        .chain((0..7).map(|number| format!("late {number}")));
    ledger.post_until_accepted(&ingest, all).await;
    balances(point, &rig, &destinations, ledger.accepted()).await;
}

/// Shortens `ack_wait`, so that the deliveries of a dead worker are redelivered soon.
async fn shorten_ack_wait(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream exists", async || {
        jetstream.get_stream(DELIVERIES).await.ok()
    })
    .await;
    for kind in ["generic", "incident.io", ""] {
        let mut config = worker_consumer("default", kind);
        let name = config
            .durable_name
            .clone()
            .expect("the workers' consumer is durable");
        config.ack_wait = ACK_WAIT;
        stream
            .get_or_create_consumer(&name, config)
            .await
            .expect("the server creates consumers");
    }
}

async fn dies_and_restarts(process: &mut Process, point: &str) {
    let status = process.ended().await;
    assert_eq!(
        status.signal(),
        Some(KILLED),
        "{point} was not reached: {status}"
    );
    process.reaches_fail_point(point).await;
    process.restart_without(&["FAIL_POINT"]).await;
}

/// Compares the accepted events with those of each destination and with the dead letters.
async fn balances(
    point: &str,
    rig: &Rig,
    destinations: &Destinations,
    accepted: &BTreeSet<String>,
) {
    let Destinations {
        healthy,
        failing,
        strict,
        limited,
        incidents,
        late,
    } = destinations;
    for (name, receiver) in [
        ("healthy", healthy),
        ("failing", failing),
        ("limited", limited),
        ("late", late),
    ] {
        let what = format!("{point}: {name} receives everything accepted");
        let received = eventually(&what, async || {
            let received = receiver.tally();
            accepted
                .iter()
                .all(|id| received.contains_key(id))
                .then_some(received)
        })
        .await;
        assert!(
            received.keys().all(|id| accepted.contains(id)),
            "{point}: {name} received an event that was never posted: {received:?}"
        );
        let most = received
            .values()
            .map(|(count, _)| *count)
            .max()
            .unwrap_or_default();
        assert!(
            most <= 1 + DEATHS,
            "{point}: {name} received an event {most} times"
        );
    }
    rig.drained().await;
    let dead = rig
        .dead_letters()
        .await
        .into_iter()
        .filter_map(|dead| dead.delivery);
    let dead = dead.map(|delivery| {
        (
            delivery.provider.unwrap_or_default().name,
            delivery.event.unwrap_or_default().message,
        )
    });
    let dead: BTreeSet<(String, String)> = dead.collect();
    let rejected: BTreeSet<_> = accepted
        .iter()
        .map(|id| ("strict".to_owned(), id.clone()))
        .collect();
    assert_eq!(
        dead, rejected,
        "{point}: only events that `strict` rejects are dead letters"
    );
    assert!(strict.accepted().is_empty());
    let newest = incidents.accepted().pop().expect("the incident is sent");
    let newest = String::from_utf8_lossy(&newest.body).into_owned();
    assert!(
        newest.contains("late 6"),
        "{point}: the newest state is sent last: {newest}"
    );
}
