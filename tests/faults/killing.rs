//! One role, all roles, or nats-server are killed with `kill -9`.

use tidings_rig::{Ledger, Process, Receiver, Rig, Role, alert, provider};

use crate::TIDINGS;

/// The maximum number of deliveries that a worker holds. Each may be sent twice if it is killed.
pub const IN_FLIGHT: usize = 512;

fn batch(name: &str) -> impl Iterator<Item = String> {
    (0..100).map(move |number| format!("{name} {number}"))
}

struct Roles {
    ingest: Process,
    router: Process,
    worker: Process,
}

async fn roles(rig: &Rig) -> Roles {
    let roles = Roles {
        router: rig.spawn(Role::router()),
        worker: rig.spawn(Role::worker()),
        ingest: rig.spawn(Role::ingest()),
    };
    for process in [&roles.ingest, &roles.router, &roles.worker] {
        process.ready().await;
    }
    roles
}

#[tokio::test]
async fn killing_a_router_loses_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut roles = roles(&rig).await;
    let mut ledger = Ledger::default();

    ledger
        .post_until_accepted(&roles.ingest, batch("before"))
        .await;
    roles.router.kill().await;
    ledger
        .post_until_accepted(&roles.ingest, batch("without"))
        .await;
    roles.router.restart().await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(balance.received.len(), 200);
    assert!(
        balance.duplicates().is_empty(),
        "a delivery is planned once: {:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn killing_a_worker_loses_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut roles = roles(&rig).await;
    let mut ledger = Ledger::default();

    ledger
        .post_until_accepted(&roles.ingest, batch("before"))
        .await;
    roles.worker.kill().await;
    ledger
        .post_until_accepted(&roles.ingest, batch("without"))
        .await;
    roles.worker.restart().await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(
        balance.duplicates().len() <= IN_FLIGHT,
        "{:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn killing_nats_server_loses_nothing() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let roles = roles(&rig).await;
    let mut ledger = Ledger::default();

    ledger
        .post_until_accepted(&roles.ingest, batch("before"))
        .await;
    rig.nats().kill().await;
    ledger.post(&roles.ingest, "while it is down").await;
    rig.nats().restart().await;
    ledger
        .post_until_accepted(&roles.ingest, batch("after"))
        .await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(
        balance.duplicates().len() <= IN_FLIGHT,
        "{:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn killing_everything_at_once_loses_nothing() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut roles = roles(&rig).await;
    let mut ledger = Ledger::default();

    for round in ["first", "second", "third"] {
        ledger
            .post_until_accepted(&roles.ingest, batch(round))
            .await;
        for process in [&mut roles.worker, &mut roles.router, &mut roles.ingest] {
            process.kill().await;
        }
        rig.nats().kill().await;
        rig.nats().restart().await;
        for process in [&mut roles.router, &mut roles.worker, &mut roles.ingest] {
            process.restart().await;
        }
    }

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(
        balance.duplicates().len() <= 3 * IN_FLIGHT,
        "{:?}",
        balance.duplicates()
    );
}
