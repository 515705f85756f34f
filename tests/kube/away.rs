//! What happens to rules while the API server is away, and after it has lost what it knew.

use serde_json::json;
use tidings_rig::{KubeApiServer, Process, Receiver, Role, event, eventually};

use crate::TIDINGS;
use crate::bed::{Bed, alert, counts, provider, reaches};

const CONNECTED: &str = "tidings_rules_source_connected";

/// An API server of the test's own, with CRDs.
async fn server() -> KubeApiServer {
    let server = KubeApiServer::start().await;
    server.install_crds().await;
    server
}

/// Stops a process, or lets it go on.
fn signal(process: &Process, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([name, &process.id().to_string()])
        .status();
    assert!(sent.expect("there is a kill").success());
}

#[tokio::test]
async fn the_last_rules_stay_in_force_while_the_api_server_is_away() {
    let mut server = server().await;
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    let bed = Bed::on(&server).await;
    bed.apply([
        provider("hook", json!({"address": first.url()})),
        alert("all", "hook"),
    ])
    .await;
    let up = bed.up().await;
    counts(&up, CONNECTED, 1.0).await;
    let Bed {
        rig: _rig,
        namespace,
        ..
    } = bed;

    server.kill();
    counts(&up, CONNECTED, 0.0).await;
    let readiness = up.readiness().await;
    assert_eq!(readiness.status, 200, "{}", readiness.body);
    assert!(
        readiness
            .body
            .contains("the last good rules stay in effect"),
        "{}",
        readiness.body
    );
    up.post(&event("while it is away")).await.unwrap();
    first.accepts("while it is away").await;

    server.restart().await;
    counts(&up, CONNECTED, 1.0).await;
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
async fn a_role_that_begins_without_an_api_server_waits_for_it() {
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
    eventually("readiness says what is missing", async || {
        let answer = up.readiness_if_up().await?;
        (answer.status == 503 && answer.body.contains("no rules are loaded yet")).then_some(())
    })
    .await;
    server.restart().await;
    up.ready().await;
    reaches(&up, &receiver).await;
}

#[tokio::test]
async fn what_changed_beyond_the_memory_of_the_api_server_is_found() {
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
    up.post(&event("after all")).await.unwrap();
    new.accepts("after all").await;
    rig.drained().await;
    assert_eq!(gone.received().len(), before);
    counts(&up, CONNECTED, 1.0).await;
}

#[tokio::test]
async fn an_api_server_that_was_restored_from_an_earlier_state_is_read_anew() {
    let mut server = server().await;
    let [kept, forgotten] = [Receiver::start().await, Receiver::start().await];
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
    server.apply(&namespace, &hook(&forgotten)).await;
    reaches(&up, &forgotten).await;

    server.restore(&snapshot).await;

    up.logs("resource-version-regressed").await;
    reaches(&up, &kept).await;
}
