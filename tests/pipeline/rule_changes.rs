//! Rules that change while events arrive.

use tidings_rig::{Process, Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Posts events until one of them reaches the receiver.
async fn reaches(up: &Process, receiver: &Receiver) {
    let mut number = 0;
    eventually("events reach the receiver", async || {
        number += 1;
        up.post(&event(&format!("try {number} for {}", receiver.url())))
            .await
            .expect("ingest responds");
        (!receiver.accepted().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_added_rule_takes_effect() {
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("first", first.url()), alert("to-first", "first")],
    )
    .await;
    reaches(&up, &first).await;

    rig.rules().put([
        provider("second", second.url()),
        alert("to-second", "second"),
    ]);

    reaches(&up, &second).await;
}

#[tokio::test]
async fn a_parked_delivery_uses_a_corrected_address() {
    let receiver = Receiver::start().await;
    let unused = format!("http://127.0.0.1:{}/", tidings_rig::free_port());
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", &unused).that_retries_soon(),
            alert("all", "hook"),
        ],
    )
    .await;
    up.post(&event("sent to the wrong place")).await.unwrap();

    rig.rules()
        .put([provider("hook", receiver.url()).that_retries_soon()]);

    receiver.accepts("sent to the wrong place").await;
}

#[tokio::test]
async fn a_broken_file_does_not_affect_others() {
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
async fn a_removed_rule_has_no_effect() {
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
    eventually("an event reaches only the remaining provider", async || {
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
    })
    .await;
}
