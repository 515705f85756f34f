//! A disk that another program fills and frees again.

use tidings_rig::{
    Ledger, LimitedDisk, Process, Receiver, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

/// More than `up` needs to start, and little enough to be filled soon.
const MEBIBYTES: u32 = 128;

async fn receiver(rig: &Rig) -> Receiver {
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    receiver
}

fn messages(name: &str) -> impl Iterator<Item = String> {
    let name = name.to_owned();
    (0..20).map(move |number| format!("{name} {number}"))
}

/// Posts events until ingest says that the server cannot write. They are larger than what the last
/// block of a file still holds.
async fn is_refused(ingest: &Process) -> String {
    let mut number = 0;
    let refused = eventually("ingest refuses events", async || {
        number += 1;
        let message = format!("refused {number} {}", "x".repeat(20_000));
        let response = ingest.post(&event(&message)).await.ok()?;
        assert_eq!(response.status, 503, "{}", response.body);
        (response.code() == "storage-failed").then_some(response)
    });
    refused.await.body
}

#[tokio::test]
async fn up_restarts_its_server_after_a_full_disk_and_loses_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let data = rig.folder().join("data");
    let Some(disk) = LimitedDisk::mount(&data, MEBIBYTES).await else {
        return;
    };
    let receiver = receiver(&rig).await;
    let up = rig.run(Role::up_with_own_server().on(&disk)).await;
    let mut ledger = Ledger::default();
    ledger.post_until_accepted(&up, messages("before")).await;

    disk.fill();
    is_refused(&up).await;
    up.is_not_ready("storage", "no space left on device").await;
    up.logs("storage-write-failed").await;
    up.logs("nats-server-not-restarted").await;
    assert!(up.log_events("nats-server-restarted").is_empty());

    disk.free();
    up.logs("nats-server-restarted").await;
    ledger.post_until_accepted(&up, messages("after")).await;
    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
    up.ready().await;
    assert_eq!(up.log_events("nats-server-restarted").len(), 1);
    assert!(up.log_events("nats-server-exited").is_empty());
}

#[tokio::test]
async fn every_role_says_that_an_external_server_must_be_restarted_after_a_full_disk() {
    let Some((mut rig, disk)) = Rig::start_on_disk(TIDINGS, MEBIBYTES).await else {
        return;
    };
    let receiver = receiver(&rig).await;
    let roles = rig
        .run_all([Role::ingest(), Role::router(), Role::worker()])
        .await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles[0], messages("before"))
        .await;
    rig.drained().await;

    disk.fill();
    let refused = is_refused(&roles[0]).await;
    assert!(refused.contains("restart the server"), "{refused}");
    disk.free();
    for role in &roles {
        role.is_not_ready("storage", "restart the server").await;
    }

    rig.nats().terminate().await;
    rig.nats().restart().await;
    for role in &roles {
        role.ready().await;
    }
    ledger
        .post_until_accepted(&roles[0], messages("after"))
        .await;
    ledger.balanced(&rig, &receiver).await;
}

#[tokio::test]
async fn roles_are_not_ready_while_the_disk_is_full_although_nobody_sends_events() {
    let Some((rig, disk)) = Rig::start_on_disk(TIDINGS, MEBIBYTES).await else {
        return;
    };
    let receiver = receiver(&rig).await;
    let roles = rig
        .run_all([Role::ingest(), Role::router(), Role::worker()])
        .await;

    disk.fill();
    for role in &roles {
        role.is_not_ready("storage", "no space left on device")
            .await;
    }

    disk.free();
    for role in &roles {
        role.ready().await;
    }
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles[0], messages("after"))
        .await;
    ledger.balanced(&rig, &receiver).await;
}
