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

#[tokio::test]
async fn an_annotation_restricts_an_alert_and_a_mistyped_one_keeps_the_last_restriction() {
    let [all, restricted] = [Receiver::start().await, Receiver::start().await];
    let rig = Rig::start(TIDINGS).await;
    let annotated = |name: &str, clusters: &str| {
        let annotations = serde_json::json!({name: clusters});
        alert("restricted", "restricted").set("/metadata/annotations", annotations)
    };
    rig.rules().put([
        provider("all", all.url()),
        provider("restricted", restricted.url()),
        alert("all", "all"),
        annotated("tidings.dev/clusters", "stage-*, eu-?"),
    ]);
    let up = rig.run(Role::up().args(["--cluster", "prod-1"])).await;
    up.post(&event("one")).await.unwrap();
    all.accepts("one").await;

    rig.rules()
        .put([annotated("tidings.dev/cluster", "prod-*")]);
    up.logs_with(
        "rule-problem",
        [(
            "problem",
            "metadata.annotations[tidings.dev/cluster]: is unknown; did you mean",
        )],
    )
    .await;
    up.post(&event("two")).await.unwrap();
    all.accepts("two").await;
    assert_eq!(restricted.accepted().len(), 0);

    rig.rules()
        .put([annotated("tidings.dev/clusters", "prod-*")]);
    reaches(&up, &restricted).await;
}

#[tokio::test]
async fn an_unknown_field_keeps_the_last_good_rule_and_never_widens_it() {
    let [all, restricted] = [Receiver::start().await, Receiver::start().await];
    let rig = Rig::start(TIDINGS).await;
    let clusters = |field: &str, glob: &str| {
        alert("restricted", "restricted").with(field, serde_json::json!([glob]))
    };
    rig.rules().put([
        provider("all", all.url()),
        provider("restricted", restricted.url()),
        alert("all", "all"),
        clusters("clusters", "stage-*"),
    ]);
    let up = rig.run(Role::up().args(["--cluster", "prod-1"])).await;
    up.logs_with("rules-loaded", [("alerts", "2"), ("providers", "2")])
        .await;

    rig.rules().put([clusters("cluster", "stage-*")]);
    up.logs_with(
        "rule-problem",
        [
            ("file", "alert-restricted.json"),
            ("line", "1"),
            ("object", "Alert apps/restricted"),
            ("field", "spec.cluster"),
        ],
    )
    .await;
    up.post(&event("for the other cluster")).await.unwrap();
    all.accepts("for the other cluster").await;
    rig.drained().await;
    assert_eq!(restricted.accepted().len(), 0);
}

#[tokio::test]
async fn problems_of_a_folder_are_logged_and_counted_until_they_are_resolved() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let with_secret = |address: &str| {
        provider("hook", address).with("secretRef", serde_json::json!({"name": "gone"}))
    };
    rig.rules()
        .put([with_secret(receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    let at_secret = [
        ("object", "Provider apps/hook"),
        ("field", "spec.secretRef"),
    ];
    up.logs_with("rule-problem", at_secret).await;
    eventually("the problem is counted", async || {
        (up.metric("tidings_rules_problems", "").await == 1.0).then_some(())
    })
    .await;

    rig.rules().put([provider("hook", receiver.url())]);
    up.logs_with("rule-problem-resolved", at_secret).await;
    eventually("the problem is resolved", async || {
        (up.metric("tidings_rules_problems", "").await == 0.0).then_some(())
    })
    .await;
}
