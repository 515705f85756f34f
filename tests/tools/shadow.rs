//! Shadow mode: routers record what would be delivered, nothing is sent, and `tidings shadow
//! report` summarizes it.

use serde_json::{Value, json};
use tidings_core::bus::streams;
use tidings_core::model::time::to_proto;
use tidings_core::{Message as _, wire::Cluster};
use tidings_rig::{
    Forge, Process, Receiver, Rig, Role, alert, event, eventually, provider, secret,
};

use crate::TIDINGS;
use crate::command::tidings;

async fn report(rig: &Rig, more: &[&str]) -> Value {
    let url = rig.url();
    let report = ["shadow", "report", "--nats", url, "--output", "json"];
    let output = tidings(&[&report[..], more].concat()).await;
    output.json().remove(0)
}

/// Posts events and waits until they are recorded.
async fn record(rig: &Rig, ingest: &Process, messages: &[&str]) {
    for message in messages {
        ingest.post(&event(message)).await.unwrap();
    }
    rig.routed().await;
}

#[tokio::test]
async fn shadow_mode_records_what_would_be_sent_and_sends_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let address = format!("{}?token=hunter2", receiver.url());
    let missing = provider("missing", &address).with("secretRef", json!({"name": "absent"}));
    let forbidden = provider("forbidden", "http://169.254.169.254/hook");
    rig.rules().put([
        provider("hook", &address),
        missing,
        forbidden,
        alert("all", "hook"),
        alert("absent", "missing"),
        alert("metadata", "forbidden"),
        alert("none", "unknown"),
    ]);
    let up = rig.run(Role::up().args(["--shadow"])).await;
    up.logs_with("shadow-mode", [("role", "router")]).await;
    up.logs_with("shadow-mode", [("role", "worker")]).await;

    record(&rig, &up, &["first", "second"]).await;

    let report = report(&rig, &["--since", "1h"]).await;
    assert_eq!(report["records"], 8);
    assert_eq!(
        report["outcomes"],
        json!({"would-fail": 2, "would-send": 2, "would-wait": 4})
    );
    let route = |name: &str| {
        let routes = report["routes"].as_array().unwrap();
        let found = routes.iter().find(|route| route["alert"] == name);
        found
            .unwrap_or_else(|| panic!("{name}: {routes:?}"))
            .clone()
    };
    assert_eq!(route("apps/all")["outcomes"], json!({"would-send": 2}));
    assert_eq!(route("apps/all")["type"], "generic");
    assert_eq!(route("apps/absent")["outcomes"], json!({"would-wait": 2}));
    assert_eq!(route("apps/none")["outcomes"], json!({"would-wait": 2}));
    let failures = report["failures"].as_array().unwrap();
    let failure = |provider: &str| {
        let found = failures.iter().find(|group| group["provider"] == provider);
        found.unwrap_or_else(|| panic!("{provider}: {failures:?}"))
    };
    assert_eq!(failure("apps/missing")["reason"], "missing");
    assert_eq!(failure("apps/forbidden")["reason"], "misconfigured");
    assert!(
        failure("apps/missing")["detail"]
            .as_str()
            .unwrap()
            .contains("absent")
    );
    let samples = report["samples"].as_array().unwrap();
    let sent = samples
        .iter()
        .find(|sample| sample["alert"] == "apps/all")
        .unwrap();
    let origin = receiver.url().trim_end_matches("/hook");
    assert_eq!(sent["requests"][0]["method"], "POST");
    assert_eq!(sent["requests"][0]["origin"], origin);
    assert_eq!(sent["title"], "kustomization/apps.apps");
    assert!(!report["differences"].as_array().unwrap().is_empty());
    assert!(!report.to_string().contains("hunter2"), "{report}");

    let text = tidings(&["shadow", "report", "--nats", rig.url()]).await;
    let text = text.lines().join("\n");
    assert!(
        text.contains("would-wait") && !text.contains("hunter2"),
        "{text}"
    );
    eventually("the status shows shadow mode", async || {
        let status = tidings(&["status", "--nats", rig.url(), "--output", "json"]).await;
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        (status["processes"][0]["isShadow"] == true).then_some(())
    })
    .await;
    up.counts("tidings_router_shadow_records_total", "would-send", 2.0)
        .await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn what_was_recorded_is_never_sent_after_shadow_mode() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let shadow = [Role::router(), Role::worker()].map(|role| role.args(["--shadow"]));
    let [mut router, mut worker] = rig.run_all(shadow).await;
    let ingest = rig.run(Role::ingest()).await;
    record(&rig, &ingest, &["in shadow mode"]).await;
    assert_eq!(report(&rig, &[]).await["records"], 1);
    assert!(router.terminate().await.success() && worker.terminate().await.success());
    ingest.post(&event("between")).await.unwrap();

    let _normal = rig.run_all([Role::router(), Role::worker()]).await;
    ingest.post(&event("afterwards")).await.unwrap();

    receiver.accepts("between").await;
    receiver.accepts("afterwards").await;
    rig.drained().await;
    let received = receiver.received();
    let messages: Vec<String> = received.iter().map(|request| request.message()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
}

#[tokio::test]
async fn shadow_mode_asks_no_forge_for_a_token_or_a_status() {
    let rig = Rig::start(TIDINGS).await;
    let forge = Forge::start().await;
    Forge::put_secret(rig.rules());
    rig.rules()
        .put([forge.provider("github"), alert("all", "forge")]);
    let up = rig.run(Role::up().args(["--shadow"])).await;
    let mut event = event("a commit");
    event["metadata"] = json!({
        "kustomize.toolkit.fluxcd.io/revision":
            "main@sha1:7e5d2a1c0b9f8e7d6c5b4a39281706f5e4d3c2b1"
    });
    up.post(&event).await.unwrap();
    rig.routed().await;

    let report = report(&rig, &[]).await;
    assert_eq!(report["outcomes"], json!({"would-send": 1}), "{report}");
    assert_eq!(forge.calls(), 0);
}

#[tokio::test]
async fn a_deleted_stream_of_records_is_created_again() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up().args(["--shadow"])).await;
    rig.jetstream().await.delete_stream("SHADOW").await.unwrap();
    record(&rig, &up, &["recorded"]).await;
    eventually("the record is there", async || {
        let exists = rig.jetstream().await.get_stream("SHADOW").await.is_ok();
        (exists && report(&rig, &[]).await["records"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_report_without_shadow_mode_says_so() {
    let rig = Rig::start(TIDINGS).await;
    let _up = rig.run(Role::up()).await;
    let report = tidings(&["shadow", "report", "--nats", rig.url()]).await;
    report.assert_error_names(&["SHADOW", "--shadow"]);
}

#[tokio::test]
async fn what_a_renamed_cluster_would_resolve_under_its_former_names_is_recorded() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        secret("key", json!({"token": "hidden-token"})),
        provider("incidents", receiver.url())
            .with("type", "pagerduty")
            .with("channel", "routing-key")
            .with("secretRef", json!({"name": "key"})),
        alert("all", "incidents"),
    ]);
    let router = rig.run(Role::router().args(["--shadow"])).await;
    let clusters = rig.jetstream().await.get_key_value(streams::CLUSTERS).await;
    let clusters = clusters.unwrap();
    let at = |second| Some(to_proto(jiff::Timestamp::from_second(second).unwrap()));
    for (name, former, second) in [("given", &[][..], 9), ("prod", &["old", "given"], 5)] {
        let cluster = Cluster {
            name: name.into(),
            former_names: former.iter().map(|it| (*it).to_owned()).collect(),
            added_at: at(second),
            ..Cluster::default()
        };
        let record = cluster.encode_to_vec().into();
        clusters.put(name, record).await.unwrap();
    }
    drop(router);
    let _router = rig.run(Role::router().args(["--shadow"])).await;
    let ingest = rig.run(Role::ingest().args(["--cluster", "prod"])).await;
    let mut resolved = event("resolved");
    resolved["involvedObject"]["uid"] = "".into();
    ingest.post(&resolved).await.unwrap();

    let report = eventually("it is recorded", async || {
        let report = report(&rig, &[]).await;
        (report["records"] == 1).then_some(report)
    })
    .await;
    let requests = report["samples"][0]["requests"].as_array().unwrap();
    // Resolved without a cluster, as `old` and as `prod`, and a change event.
    assert_eq!(requests.len(), 4, "{report}");
}
