//! Rules from the cluster are in force as they are there.

use serde_json::json;
use tidings_rig::{KubeApiServer, Receiver, Role, event, eventually, free_port};

use crate::bed::{Bed, FLUXS_FINALIZER, alert, held_by, provider, reaches, secret};

/// States of all rules that were put in force.
const SNAPSHOTS: &str = "tidings_rules_snapshots_total";

#[tokio::test]
async fn a_change_is_in_force() {
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
    eventually("an event reaches only the Alert that is left", async || {
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

#[tokio::test]
async fn a_write_to_the_status_makes_no_new_rules() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let receiver = Receiver::start().await;
    let up = bed.up().await;
    bed.apply([
        provider("hook", json!({"address": "http://nobody.invalid"})),
        alert("all", "hook"),
    ])
    .await;
    bed.apply([
        provider("first", json!({"address": receiver.url()})),
        alert("first", "first"),
    ])
    .await;
    reaches(&up, &receiver).await;
    let before = up.metric(SNAPSHOTS, "").await;

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
    assert_eq!(
        up.metric(SNAPSHOTS, "").await,
        before + 1.0,
        "only the changed address"
    );
}

#[tokio::test]
async fn a_name_that_no_secret_can_have_holds_no_other_rule_up() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
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
    for problem in ["/astray: spec.secretRef", "/capital: spec.secretRef"] {
        up.logs_with("rule-problem", [("problem", problem)]).await;
    }
}

#[tokio::test]
async fn a_rotated_secret_heals_what_waits() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let receiver = Receiver::start().await;
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let reference = json!({"secretRef": {"name": "token"}});
    bed.apply([provider("hook", reference), alert("all", "hook")])
        .await;
    let up = bed.up().await;
    up.post(&event("before there is a Secret")).await.unwrap();
    up.logs_with("delivery-parked", [("provider", "/hook")])
        .await;
    bed.apply([secret(
        "token",
        json!({"address": nobody, "headers": "X-Token: old"}),
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
async fn what_waits_goes_to_a_provider_that_was_made_anew_with_another_type() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let receiver = Receiver::start().await;
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    bed.apply([
        provider("hook", json!({"address": nobody})),
        alert("all", "hook"),
    ])
    .await;
    let up = bed.up().await;
    up.post(&event("waits")).await.unwrap();
    eventually("it was tried", async || {
        (up.metric("tidings_worker_attempts_total", "generic").await > 0.0).then_some(())
    })
    .await;

    bed.kubectl("delete provider hook").await;
    let again =
        json!({"type": "generic-hmac", "address": receiver.url(), "secretRef": {"name": "key"}});
    bed.apply([
        secret("key", json!({"token": "k3y"})),
        provider("hook", again),
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
async fn only_rules_with_the_labels_that_were_asked_for_count() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let [ours, theirs] = [Receiver::start().await, Receiver::start().await];
    for (name, receiver) in [("ours", &ours), ("theirs", &theirs)] {
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
        .args(["--watch-label-selector", "sharding.fluxcd.io/key=ours"]);
    let up = bed.rig.run(role).await;
    reaches(&up, &ours).await;
    bed.rig.drained().await;
    assert_eq!(theirs.received().len(), 0);

    bed.kubectl("label --overwrite alert/ours sharding.fluxcd.io/key=theirs")
        .await;
    bed.kubectl("label --overwrite alert/theirs provider/theirs sharding.fluxcd.io/key=ours")
        .await;
    reaches(&up, &theirs).await;
}

#[tokio::test]
async fn a_deletion_that_waits_for_notification_controller_goes_on() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let _up = bed.up().await;
    let flux = FLUXS_FINALIZER;
    bed.apply([
        held_by(
            provider("plain", json!({"address": "http://nobody.invalid"})),
            &[flux],
        ),
        held_by(
            provider("stays", json!({"address": "http://nobody.invalid"})),
            &[flux],
        ),
        held_by(
            alert("guarded", "plain"),
            &["example.org/first", flux, "example.org/last"],
        ),
    ])
    .await;

    bed.kubectl("delete --wait=false provider/plain alert/guarded")
        .await;

    eventually("the Provider is gone", async || {
        bed.kubectl("get provider plain --ignore-not-found --output name")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    eventually(
        "of the Alert's finalizers the others are left",
        async || {
            let left = bed
                .kubectl("get alert guarded --output jsonpath={.metadata.finalizers}")
                .await;
            (left == r#"["example.org/first","example.org/last"]"#).then_some(())
        },
    )
    .await;
    let kept = bed
        .kubectl("get provider stays --output jsonpath={.metadata.finalizers}")
        .await;
    assert_eq!(
        kept, r#"["finalizers.fluxcd.io"]"#,
        "one that is not being deleted keeps it"
    );
    for object in ["provider/stays", "alert/guarded"] {
        bed.kubectl(&format!(
            "patch {object} --type=merge --patch {{\"metadata\":{{\"finalizers\":null}}}}"
        ))
        .await;
    }
}

#[tokio::test]
async fn a_deletion_waits_for_notification_controller_where_the_operator_says_so() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let role = bed
        .role(Role::up())
        .env("TIDINGS_KUBERNETES__NAMESPACE", &bed.namespace);
    let mut keeps = bed
        .rig
        .run(role.clone().args(["--no-release-finalizers"]))
        .await;
    bed.apply([
        held_by(
            provider("plain", json!({"address": "http://nobody.invalid"})),
            &[FLUXS_FINALIZER],
        ),
        alert("a", "plain"),
    ])
    .await;
    let says = async |reason: &str| {
        eventually(&format!("the Alert says {reason}"), async || {
            let said = bed
                .kubectl("get alert a --output jsonpath={.status.conditions[0].reason}")
                .await;
            (said == reason).then_some(())
        })
        .await;
    };
    says("Initialized").await;

    bed.kubectl("delete --wait=false provider/plain").await;
    says("ProviderNotFound").await;
    let kept = bed
        .kubectl("get provider plain --output jsonpath={.metadata.finalizers}")
        .await;
    assert_eq!(kept, r#"["finalizers.fluxcd.io"]"#);

    assert!(keeps.terminate().await.success());
    let _releases = bed.rig.run(role).await;
    eventually("one that may release it does", async || {
        bed.kubectl("get provider plain --ignore-not-found --output name")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
}
