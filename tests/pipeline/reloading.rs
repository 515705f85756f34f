//! Rules that change while events come in.

use tidings_rig::{Process, Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Posts events until one of them has reached the receiver.
async fn reaches(up: &Process, receiver: &Receiver) {
    let mut number = 0;
    eventually("events reach the receiver", async || {
        number += 1;
        up.post(&event(&format!("try {number} for {}", receiver.url())))
            .await
            .expect("ingest answers");
        (!receiver.accepted().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rule_that_is_added_is_in_force() {
    let rig = Rig::start(TIDINGS).await;
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    rig.rules()
        .put([provider("first", first.url()), alert("to-first", "first")]);
    let up = rig.run(Role::up()).await;
    reaches(&up, &first).await;

    rig.rules().put([
        provider("second", second.url()),
        alert("to-second", "second"),
    ]);

    reaches(&up, &second).await;
}

#[tokio::test]
async fn a_corrected_address_heals_what_waits() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let nobody = format!("http://127.0.0.1:{}/", tidings_rig::free_port());
    rig.rules().put([
        provider("hook", &nobody).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    up.post(&event("sent to the wrong place")).await.unwrap();

    rig.rules()
        .put([provider("hook", receiver.url()).that_retries_soon()]);

    receiver.accepts("sent to the wrong place").await;
}

#[tokio::test]
async fn a_broken_file_costs_only_itself() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let up = rig.run(Role::up()).await;

    rig.rules()
        .put_text("broken.yaml", "kind: Alert\n  spec: [");
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);

    reaches(&up, &receiver).await;
    up.logs_with("rule-problem", [("problem", "broken.yaml")])
        .await;
}

#[tokio::test]
async fn a_rule_that_is_removed_is_no_longer_in_force() {
    let rig = Rig::start(TIDINGS).await;
    let [kept, removed] = [Receiver::start().await, Receiver::start().await];
    rig.rules().put([
        provider("kept", kept.url()),
        provider("removed", removed.url()),
    ]);
    rig.rules()
        .put([alert("to-kept", "kept"), alert("to-removed", "removed")]);
    let up = rig.run(Role::up()).await;
    reaches(&up, &removed).await;

    rig.rules().remove(&alert("to-removed", "removed"));

    let mut number = 0;
    eventually(
        "an event reaches only the provider that is left",
        async || {
            number += 1;
            let message = format!("after the removal {number}");
            up.post(&event(&message)).await.unwrap();
            kept.accepts(&message).await;
            rig.drained().await;
            removed
                .received()
                .iter()
                .all(|received| received.message() != message)
                .then_some(())
        },
    )
    .await;
}
