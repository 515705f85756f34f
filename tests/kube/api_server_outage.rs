//! Rules while the API server is down, and after it loses data.

use serde_json::json;
use tidings_rig::{KubeApiServer, Process, Receiver, Role, event};

use crate::TIDINGS;
use crate::bed::{Bed, alert, provider, reaches};

const CONNECTED: &str = "tidings_rules_source_connected";

/// An API server of one test, with CRDs.
async fn server() -> KubeApiServer {
    let server = KubeApiServer::start().await;
    server.install_crds().await;
    server
}

/// Sends a signal to a process.
fn signal(process: &Process, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([name, &process.id().to_string()])
        .status();
    assert!(sent.expect("kill can be started").success());
}

#[tokio::test]
async fn the_last_rules_stay_in_use_while_the_api_server_is_down() {
    let mut server = server().await;
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    let bed = Bed::on(&server).await;
    bed.apply([
        provider("hook", json!({"address": first.url()})),
        alert("all", "hook"),
    ])
    .await;
    let up = bed.up().await;
    up.counts(CONNECTED, "", 1.0).await;
    let Bed {
        rig: _rig,
        namespace,
        ..
    } = bed;

    server.kill();
    up.counts(CONNECTED, "", 0.0).await;
    let readiness = up.readiness().await;
    assert_eq!(readiness.status, 200, "{}", readiness.body);
    assert!(readiness.problem("rules").is_some(), "{}", readiness.body);
    up.post(&event("while it is down")).await.unwrap();
    first.accepts("while it is down").await;

    server.restart().await;
    up.counts(CONNECTED, "", 1.0).await;
    assert_eq!(up.readiness().await.body, "ok\n");
    server
        .apply(
            &namespace,
            &provider("hook", json!({"address": second.url()})).to_string(),
        )
        .await;
    reaches(&up, &second).await;
}

#[tokio::test]
async fn a_role_that_starts_without_an_api_server_waits_for_it() {
    let mut server = server().await;
    let receiver = Receiver::start().await;
    let bed = Bed::on(&server).await;
    bed.apply([
        provider("hook", json!({"address": receiver.url()})),
        alert("all", "hook"),
    ])
    .await;
    let (role, rig) = (bed.role(Role::up()), bed.rig);
    server.kill();

    let up = rig.spawn(role);
    up.is_not_ready("rules", "loaded").await;
    server.restart().await;
    up.ready().await;
    reaches(&up, &receiver).await;
}

#[tokio::test]
async fn changes_before_a_compaction_are_found() {
    let mut server = server().await;
    let [gone, new] = [Receiver::start().await, Receiver::start().await];
    let bed = Bed::on(&server).await;
    for (name, receiver) in [("gone", &gone), ("new", &new)] {
        bed.apply([provider(name, json!({"address": receiver.url()}))])
            .await;
    }
    bed.apply([alert("to-gone", "gone")]).await;
    let up = bed
        .rig
        .run(
            bed.role(Role::up())
                .args(["--log-level", "info,kube_runtime=debug"]),
        )
        .await;
    reaches(&up, &gone).await;
    bed.rig.drained().await;

    signal(&up, "-STOP");
    bed.apply([alert("to-new", "new")]).await;
    bed.kubectl("delete alert to-gone").await;
    server.compact().await;
    let Bed { rig, .. } = bed;
    server.restart().await;
    signal(&up, "-CONT");

    up.prints("too old resource version").await;
    reaches(&up, &new).await;
    rig.drained().await;
    let before = gone.received().len();
    up.post(&event("after the changes")).await.unwrap();
    new.accepts("after the changes").await;
    rig.drained().await;
    assert_eq!(gone.received().len(), before);
    up.counts(CONNECTED, "", 1.0).await;
}

#[tokio::test]
async fn rules_are_read_again_after_a_restore_of_the_api_server() {
    let mut server = server().await;
    let [kept, lost] = [Receiver::start().await, Receiver::start().await];
    let namespace = server.namespace().await;
    let hook =
        |receiver: &Receiver| provider("hook", json!({"address": receiver.url()})).to_string();
    server.apply(&namespace, &hook(&kept)).await;
    server
        .apply(&namespace, &alert("all", "hook").to_string())
        .await;
    let snapshot = server.snapshot().await;
    let rig = tidings_rig::Rig::start(TIDINGS).await;
    let up = rig
        .run(
            Role::up()
                .in_cluster(&server.kubeconfig())
                .args(["--watch-namespace", &namespace]),
        )
        .await;
    reaches(&up, &kept).await;
    server.apply(&namespace, &hook(&lost)).await;
    reaches(&up, &lost).await;

    server.restore(&snapshot).await;

    up.logs("resource-version-regressed").await;
    reaches(&up, &kept).await;
}
