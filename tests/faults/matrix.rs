//! Every fail point on the bus in turn, from the list in the code: the process that reaches it dies
//! there, and the account is settled.
//!
//! Each run is the same: every kind of destination, a worker that has died once already, so that
//! some deliveries come again, and one process that is armed. A point that is not reached fails its
//! run.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;
use tidings_core::bus::streams::{DELIVERIES, worker_consumer};
use tidings_core::runtime::failpoint::BUS_POINTS;
use tidings_rig::{
    Ledger, Manifest, Process, Receiver, Reply, Rig, Role, alert, eventually, provider,
};

use crate::TIDINGS;

const KILLED: i32 = 9;
/// So many runs go on at once: they mostly wait.
const SIDE_BY_SIDE: usize = 3;
/// What a dead worker held comes again so soon.
const COMES_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// So many events come before the first worker dies.
const EARLY: usize = 3;
/// The first worker and the armed process.
const DEATHS: usize = 2;

#[tokio::test]
async fn a_process_that_dies_before_or_after_any_of_its_side_effects_loses_nothing() {
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
        .buffer_unordered(SIDE_BY_SIDE);
    let failed: Vec<&str> = runs
        .filter_map(|(point, failed)| async move { failed.then_some(point) })
        .collect()
        .await;
    assert!(
        failed.is_empty(),
        "{failed:?} of {} points; see above why",
        BUS_POINTS.len()
    );
}

/// The destinations of a run: one that takes everything, one that fails every other time, one that
/// refuses for good, one with a rate limit, one of which only the newest state counts, and one that
/// is made after its deliveries are planned.
struct Destinations {
    well: Receiver,
    sick: Receiver,
    strict: Receiver,
    limited: Receiver,
    incidents: Receiver,
    late: Receiver,
}

impl Destinations {
    async fn start(rig: &Rig) -> Self {
        let well = Receiver::script([Reply::Stall; EARLY]).await;
        let [sick, strict] = [Receiver::start().await, Receiver::start().await];
        let [limited, incidents, late] = [
            Receiver::start().await,
            Receiver::start().await,
            Receiver::start().await,
        ];
        sick.answer_in_turn([Reply::Status(503), Reply::Status(200)]);
        strict.answer_with(Reply::Status(400));
        let generic =
            |name: &str, receiver: &Receiver| provider(name, receiver.url()).that_retries_soon();
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: apps}\nstringData: {token: hidden-token}\n";
        rig.rules().put_text("secret.yaml", secret);
        rig.rules().put([
            generic("well", &well),
            generic("sick", &sick),
            generic("strict", &strict),
            generic("limited", &limited).with("rateLimit", json!("5/1s")),
            generic("incidents", &incidents)
                .with("type", json!("incident.io"))
                .with("secretRef", json!({"name": "key"}))
                .with("timeout", json!("1s")),
        ]);
        rig.rules().put(
            ["well", "sick", "strict", "limited", "incidents", "late"]
                .map(|name| alert(name, name)),
        );
        Self {
            well,
            sick,
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
    // Ingest and router have to bring the first worker its early events.
    let time = if worker { 1 } else { EARLY + 1 };
    let armed = |role: Role| role.env("FAIL_POINT", &format!("{point}@{time}"));
    let mut router = rig.spawn(if router {
        armed(Role::router())
    } else {
        Role::router()
    });
    hasten(&rig).await;
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
    destinations.well.receives(EARLY).await;
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
    dies_and_comes_back(dying, point).await;
    let all = (0..EARLY)
        .map(|number| format!("early {number}"))
        .chain((0..7).map(|number| format!("late {number}")));
    ledger.post_insistently(&ingest, all).await;
    balances(point, &rig, &destinations, ledger.accepted()).await;
}

/// Has what a dead worker held come again soon, so that the test is quick.
async fn hasten(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream is there", async || {
        jetstream.get_stream(DELIVERIES).await.ok()
    })
    .await;
    for kind in ["generic", "incident.io", ""] {
        let mut config = worker_consumer("default", kind);
        let name = config
            .durable_name
            .clone()
            .expect("the workers' consumer is durable");
        config.ack_wait = COMES_AGAIN_AFTER;
        stream
            .get_or_create_consumer(&name, config)
            .await
            .expect("the server makes consumers");
    }
}

async fn dies_and_comes_back(process: &mut Process, point: &str) {
    let status = process.ended().await;
    assert_eq!(
        status.signal(),
        Some(KILLED),
        "{point} was not reached: {status}"
    );
    process.reaches_fail_point(point).await;
    process.restart_without(&["FAIL_POINT"]).await;
}

/// Compares what was accepted with what each destination has received, and with the dead letters,
/// id by id.
async fn balances(
    point: &str,
    rig: &Rig,
    destinations: &Destinations,
    accepted: &BTreeSet<String>,
) {
    let Destinations {
        well,
        sick,
        strict,
        limited,
        incidents,
        late,
    } = destinations;
    for (name, receiver) in [
        ("well", well),
        ("sick", sick),
        ("limited", limited),
        ("late", late),
    ] {
        let what = format!("{point}: everything accepted arrives at {name}");
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
            "{point}: {name} got what was never posted: {received:?}"
        );
        let most = received
            .values()
            .map(|(count, _)| *count)
            .max()
            .unwrap_or_default();
        assert!(
            most <= 1 + DEATHS,
            "{point}: {name} got an event {most} times"
        );
    }
    rig.drained().await;
    let letters = rig
        .dead_letters()
        .await
        .into_iter()
        .filter_map(|letter| letter.delivery);
    let letters = letters.map(|delivery| {
        (
            delivery.provider.unwrap_or_default().name,
            delivery.event.unwrap_or_default().message,
        )
    });
    let dead: BTreeSet<(String, String)> = letters.collect();
    let refused: BTreeSet<_> = accepted
        .iter()
        .map(|id| ("strict".to_owned(), id.clone()))
        .collect();
    assert_eq!(
        dead, refused,
        "{point}: what is refused for good is kept, and nothing else"
    );
    assert!(strict.accepted().is_empty());
    let newest = incidents.accepted().pop().expect("the incident is told");
    let newest = String::from_utf8_lossy(&newest.body).into_owned();
    assert!(
        newest.contains("late 6"),
        "{point}: the newest state is told last: {newest}"
    );
}
