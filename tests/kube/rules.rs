//! Rules from a cluster.

use serde_json::json;
use tidings_rig::{
    KubeApiServer, ONE_FOR_EACH_POST, Process, Receiver, Role, event, eventually, free_port,
};

use crate::bed::{Bed, FLUX_FINALIZER, alert, provider, reaches, secret, with_finalizers};

/// The number of snapshots of the rules.
const SNAPSHOTS: &str = "tidings_rules_snapshots_total";

#[tokio::test]
async fn a_change_takes_effect() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    let up = bed.up().await;
    bed.apply([
        provider("hook", json!({"address": first.url()})),
        alert("all", "hook"),
    ])
    .await;
    reaches(&up, &first).await;
    bed.apply([provider("hook", json!({"address": second.url()}))])
        .await;
    reaches(&up, &second).await;

    bed.apply([
        provider("other", json!({"address": first.url()})),
        alert("to-other", "other"),
    ])
    .await;
    reaches(&up, &first).await;
    bed.kubectl("delete alert all").await;
    let mut number = 0;
    eventually("an event matches only the remaining Alert", async || {
        number += 1;
        let message = format!("after the deletion {number}");
        up.post(&event(&message)).await.unwrap();
        first.accepts(&message).await;
        bed.rig.drained().await;
        second
            .received()
            .iter()
            .all(|received| received.message() != message)
            .then_some(())
    })
    .await;
}

/// Waits until a metric has not changed for a second. Snapshots are counted after they are in
/// effect.
async fn settled(process: &Process, metric: &str) -> f64 {
    let (mut value, mut times) = (0.0, 0);
    eventually("the metric does not change any more", async || {
        let last = std::mem::replace(&mut value, process.metric(metric, "").await);
        let is_equal = (value - last).abs() < f64::EPSILON;
        times = if is_equal { times + 1 } else { 0 };
        (times == 50).then_some(value)
    })
    .await
}

#[tokio::test]
async fn a_status_update_creates_no_snapshot() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    bed.rig
        .leaves_deliveries(ONE_FOR_EACH_POST, "the Provider `hook` is never reachable");
    let receiver = Receiver::start().await;
    let up = bed.up().await;
    bed.apply([
        provider("hook", json!({"address": "http://unused.invalid"})),
        alert("all", "hook"),
    ])
    .await;
    bed.apply([
        provider("first", json!({"address": receiver.url()})),
        alert("first", "first"),
    ])
    .await;
    reaches(&up, &receiver).await;
    let before = settled(&up, SNAPSHOTS).await;

    for number in 0..3 {
        let patch = format!(r#"{{"status":{{"observedGeneration":{number}}}}}"#);
        bed.kubectl(&format!(
            "patch alert all --subresource=status --type=merge --patch {patch}"
        ))
        .await;
    }
    let second = Receiver::start().await;
    bed.apply([provider("first", json!({"address": second.url()}))])
        .await;
    reaches(&up, &second).await;
    // Only the changed address creates a snapshot.
    up.counts(SNAPSHOTS, "", before + 1.0).await;
}

#[tokio::test]
async fn an_invalid_secret_name_does_not_affect_other_rules() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    bed.rig.leaves_deliveries(
        ONE_FOR_EACH_POST,
        "the Provider `astray` has no valid Secret",
    );
    let receiver = Receiver::start().await;
    let reference = |name: &str| json!({"secretRef": {"name": name}});
    bed.apply([
        provider("astray", reference("../configmaps/Not a name")),
        provider("capital", reference("Token")),
    ])
    .await;
    bed.apply([
        provider("hook", json!({"address": receiver.url()})),
        alert("all", "hook"),
        alert("none", "astray"),
    ])
    .await;
    let up = bed.up().await;
    reaches(&up, &receiver).await;
    for name in ["Not a name", "Token"] {
        up.logs_with("rule-problem", [("problem", name)]).await;
    }
    let fields = [("provider", "/astray"), ("detail", "spec.secretRef")];
    up.logs_with("delivery-parked", fields).await;
}

#[tokio::test]
async fn parked_deliveries_use_a_rotated_secret() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let receiver = Receiver::start().await;
    let unused = format!("http://127.0.0.1:{}/", free_port());
    let reference = json!({"secretRef": {"name": "token"}});
    bed.apply([provider("hook", reference), alert("all", "hook")])
        .await;
    let up = bed.up().await;
    up.post(&event("before there is a Secret")).await.unwrap();
    up.logs_with(
        "delivery-parked",
        [("provider", "/hook"), ("reason", "missing")],
    )
    .await;
    bed.apply([secret(
        "token",
        json!({"address": unused, "headers": "X-Token: old"}),
    )])
    .await;
    up.post(&event("sent with the old one")).await.unwrap();

    bed.apply([secret(
        "token",
        json!({"address": receiver.url(), "headers": "X-Token: new"}),
    )])
    .await;

    for message in ["before there is a Secret", "sent with the old one"] {
        assert_eq!(
            receiver.accepts(message).await.header("x-token"),
            Some("new")
        );
    }
    bed.kubectl("delete secret token").await;
    up.post(&event("without the Secret")).await.unwrap();
    bed.apply([secret(
        "token",
        json!({"address": receiver.url(), "headers": "X-Token: newer"}),
    )])
    .await;
    receiver.accepts("without the Secret").await;
}

#[tokio::test]
async fn a_parked_delivery_goes_to_a_recreated_provider_of_another_type() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let receiver = Receiver::start().await;
    let unused = format!("http://127.0.0.1:{}/", free_port());
    bed.apply([
        provider("hook", json!({"address": unused})),
        alert("all", "hook"),
    ])
    .await;
    let up = bed.up().await;
    up.post(&event("waits")).await.unwrap();
    eventually("an attempt was made", async || {
        (up.metric("tidings_worker_attempts_total", "generic").await > 0.0).then_some(())
    })
    .await;

    bed.kubectl("delete provider hook").await;
    let recreated =
        json!({"type": "generic-hmac", "address": receiver.url(), "secretRef": {"name": "key"}});
    bed.apply([
        secret("key", json!({"token": "k3y"})),
        provider("hook", recreated),
    ])
    .await;

    assert!(
        receiver
            .accepts("waits")
            .await
            .header("x-signature")
            .is_some()
    );
}

#[tokio::test]
async fn only_rules_that_match_the_label_selector_are_used() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let [selected, other] = [Receiver::start().await, Receiver::start().await];
    for (name, receiver) in [("selected", &selected), ("other", &other)] {
        bed.apply([
            provider(name, json!({"address": receiver.url()})),
            alert(name, name),
        ])
        .await;
        bed.kubectl(&format!(
            "label alert/{name} provider/{name} sharding.fluxcd.io/key={name}"
        ))
        .await;
    }
    let role = bed
        .role(Role::up())
        .args(["--watch-label-selector", "sharding.fluxcd.io/key=selected"]);
    let up = bed.rig.run(role).await;
    reaches(&up, &selected).await;
    bed.rig.drained().await;
    assert_eq!(other.received().len(), 0);

    bed.kubectl("label --overwrite alert/selected sharding.fluxcd.io/key=other")
        .await;
    bed.kubectl("label --overwrite alert/other provider/other sharding.fluxcd.io/key=selected")
        .await;
    reaches(&up, &other).await;
    bed.rig.drained().await;
}

#[tokio::test]
async fn the_finalizer_of_notification_controller_is_removed_on_deletion() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let _up = bed.up().await;
    let flux = FLUX_FINALIZER;
    bed.apply([
        with_finalizers(
            provider("plain", json!({"address": "http://unused.invalid"})),
            &[flux],
        ),
        with_finalizers(
            provider("stays", json!({"address": "http://unused.invalid"})),
            &[flux],
        ),
        with_finalizers(
            alert("guarded", "plain"),
            &["example.org/first", flux, "example.org/last"],
        ),
    ])
    .await;

    bed.kubectl("delete --wait=false provider/plain alert/guarded")
        .await;

    eventually("the Provider is deleted", async || {
        bed.kubectl("get provider plain --ignore-not-found --output name")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    eventually("the other finalizers of the Alert remain", async || {
        let left = bed
            .kubectl("get alert guarded --output jsonpath={.metadata.finalizers}")
            .await;
        (left == r#"["example.org/first","example.org/last"]"#).then_some(())
    })
    .await;
    let kept = bed
        .kubectl("get provider stays --output jsonpath={.metadata.finalizers}")
        .await;
    assert_eq!(
        kept, r#"["finalizers.fluxcd.io"]"#,
        "an object that is not deleted keeps its finalizer"
    );
    for object in ["provider/stays", "alert/guarded"] {
        bed.kubectl(&format!(
            "patch {object} --type=merge --patch {{\"metadata\":{{\"finalizers\":null}}}}"
        ))
        .await;
    }
}

#[tokio::test]
async fn no_release_finalizers_keeps_the_finalizer_of_notification_controller() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let role = bed
        .role(Role::up())
        .env("TIDINGS_KUBERNETES__NAMESPACE", &bed.namespace);
    let mut keeps = bed
        .rig
        .run(role.clone().args(["--no-release-finalizers"]))
        .await;
    bed.apply([
        with_finalizers(
            provider("plain", json!({"address": "http://unused.invalid"})),
            &[FLUX_FINALIZER],
        ),
        alert("a", "plain"),
    ])
    .await;
    let has_reason = async |reason: &str| {
        eventually(&format!("the Alert has the reason {reason}"), async || {
            let current = bed
                .kubectl("get alert a --output jsonpath={.status.conditions[0].reason}")
                .await;
            (current == reason).then_some(())
        })
        .await;
    };
    has_reason("Initialized").await;

    bed.kubectl("delete --wait=false provider/plain").await;
    has_reason("ProviderNotFound").await;
    let kept = bed
        .kubectl("get provider plain --output jsonpath={.metadata.finalizers}")
        .await;
    assert_eq!(kept, r#"["finalizers.fluxcd.io"]"#);

    assert!(keeps.terminate().await.success());
    let _releases = bed.rig.run(role).await;
    eventually(
        "a router that may remove the finalizer does so",
        async || {
            bed.kubectl("get provider plain --ignore-not-found --output name")
                .await
                .is_empty()
                .then_some(())
        },
    )
    .await;
}
