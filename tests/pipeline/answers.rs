//! Answers that look like a success, and answers that are lost.

use serde_json::json;
use tidings_rig::{
    Authority, Forge, Manifest, Receiver, Rejection, Reply, Rig, Role, alert, event, eventually,
    provider, secret, self_signed,
};

use crate::TIDINGS;

/// Starts a pipeline with this Provider for the receiver, and posts one event.
async fn post_one(provider: Manifest) -> (Rig, tidings_rig::Process) {
    let (rig, up) = Rig::up(TIDINGS, [provider, alert("all", "hook")]).await;
    up.post(&event("one")).await.expect("ingest responds");
    (rig, up)
}

async fn dead_letter(rig: &Rig) -> (String, String) {
    let dead = eventually("there is a dead letter", async || {
        rig.dead_letters().await.pop()
    })
    .await;
    (dead.reason, dead.detail)
}

#[tokio::test]
async fn a_redirected_post_is_dead_and_the_login_page_is_not_asked() {
    for status in [301, 302, 303] {
        let receiver = Receiver::script([Reply::Redirect(status, "/login?token=s3cret")]).await;
        let hook = provider("hook", receiver.url()).that_retries_soon();
        let (rig, _up) = post_one(hook).await;

        let (reason, detail) = dead_letter(&rig).await;
        assert_eq!(reason, "rejected", "{detail}");
        assert!(
            detail.contains("/login") && !detail.contains("s3cret"),
            "{detail}"
        );
        assert!(detail.contains("acceptRedirects"), "{detail}");
        assert_eq!(receiver.count(), 1, "{:?}", receiver.received());
    }
}

#[tokio::test]
async fn a_post_that_is_redirected_with_its_body_is_delivered() {
    for status in [307, 308] {
        let receiver = Receiver::script([Reply::Redirect(status, "/moved")]).await;
        let (rig, _up) = post_one(provider("hook", receiver.url())).await;

        let received = receiver.receives(2).await;
        assert_eq!(received[1].target, "POST /moved");
        assert_eq!(received[1].message(), "one");
        rig.drained().await;
    }
}

#[tokio::test]
async fn a_provider_accepts_a_redirect_if_it_says_so() {
    let receiver = Receiver::script([Reply::Redirect(303, "/done")]).await;
    let hook = provider("hook", receiver.url()).with("acceptRedirects", json!(true));
    let (rig, _up) = post_one(hook).await;

    receiver.receives(1).await;
    rig.drained().await;
    assert_eq!(receiver.count(), 1, "{:?}", receiver.received());
    assert_eq!(
        rig.outcomes().await[0].attempt.clone().unwrap().outcome,
        "delivered"
    );
}

#[tokio::test]
async fn a_state_whose_write_was_redirected_or_answered_by_a_page_is_written_again() {
    let page = Rejection {
        body: "<!DOCTYPE html><title>Sign in</title>",
        ..Rejection::status(200)
    };
    let redirect = Rejection {
        headers: vec![("location", "/login".to_owned())],
        ..Rejection::status(302)
    };
    for (number, rejection) in [page, redirect].into_iter().enumerate() {
        let forge = Forge::start().await;
        let rig = Rig::start(TIDINGS).await;
        Forge::put_secret(rig.rules());
        rig.rules()
            .put([forge.provider("github"), alert("all", "forge")]);
        let up = rig.run(Role::up()).await;

        forge.reject_writes(Some(rejection));
        up.post(&of_a_commit("first")).await.unwrap();
        let (reason, detail) = dead_letter(&rig).await;
        assert_eq!(reason, "rejected", "{number}: {detail}");

        forge.reject_writes(None);
        up.post(&of_a_commit("second")).await.unwrap();
        eventually("the state is posted", async || {
            (!forge.states().is_empty()).then_some(())
        })
        .await;
        rig.drained().await;
    }
}

fn of_a_commit(message: &str) -> serde_json::Value {
    let mut event = event(message);
    event["metadata"]["kustomize.toolkit.fluxcd.io/revision"] =
        "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291".into();
    event
}

#[tokio::test]
async fn a_success_whose_body_breaks_is_delivered_once_if_the_status_decides() {
    for reply in [Reply::CloseHalfWay, Reply::StallHalfWay] {
        let receiver = Receiver::script([reply]).await;
        let hook = provider("hook", receiver.url()).that_retries_soon();
        let (rig, _up) = post_one(hook).await;

        receiver.receives(1).await;
        rig.drained().await;
        assert_eq!(receiver.count(), 1, "{reply:?}");
        assert_eq!(
            rig.outcomes().await[0].attempt.clone().unwrap().outcome,
            "delivered"
        );
    }
}

#[tokio::test]
async fn a_success_whose_body_breaks_is_an_unknown_answer_if_the_body_decides() {
    let receiver = Receiver::script([Reply::CloseHalfWay]).await;
    let hook = provider("hook", receiver.url())
        .with("type", "pagerduty")
        .with("channel", "key")
        .that_retries_soon();
    let (rig, _up) = post_one(hook).await;

    let attempt = eventually("an attempt is reported", async || {
        rig.outcomes().await.pop()?.attempt
    })
    .await;
    let got = (attempt.outcome.as_str(), attempt.reason.as_str());
    assert_eq!(got, ("retrying", "answer-unknown"), "{attempt:?}");
    rig.leaves_deliveries(1, "the delivery is parked for a minute");
}

#[tokio::test]
async fn a_server_whose_certificate_is_the_configured_authority_is_trusted() {
    let (certificate, key) = self_signed("localhost");
    let receiver = Receiver::with_certificate(&certificate, &key).await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([secret("ca", json!({"ca.crt": certificate}))]);
    rig.rules()
        .put([secret("other", json!({"caFile": Authority::new().pem()}))]);
    let with_ca = |name: &str, ca: &str| {
        provider(name, receiver.url())
            .with("certSecretRef", json!({"name": ca}))
            .that_retries_soon()
    };
    rig.rules()
        .put([with_ca("hook", "ca"), with_ca("untrusting", "other")]);
    rig.rules()
        .put([alert("all", "hook"), alert("more", "untrusting")]);
    let up = rig.run(Role::up()).await;

    up.post(&event("by TLS")).await.unwrap();

    receiver.accepts("by TLS").await;
    let untrusted = [
        ("provider", "apps/untrusting"),
        ("reason", "untrusted-certificate"),
    ];
    let parked = up.logs_with("delivery-parked", untrusted).await;
    assert!(parked.field("detail").contains("certificate"), "{parked:?}");
    rig.leaves_deliveries(1, "a Provider does not trust its server");
}
