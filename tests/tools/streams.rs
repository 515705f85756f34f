//! `tidings streams apply`, and streams that another client changed before a role starts.

use std::time::Duration;

use tidings_rig::{Receiver, Rig, Role, alert, event, provider};

use crate::TIDINGS;
use crate::command::tidings;

#[tokio::test]
async fn router_and_worker_do_not_start_on_changed_streams_before_they_are_applied() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    tidings(&["streams", "apply", "--nats", url]).await.lines();
    let jetstream = rig.jetstream().await;
    for (stream, field) in [("EVENTS", "max_age"), ("DELIVERIES", "allow_direct")] {
        let mut config = jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone();
        if stream == "EVENTS" {
            config.max_age = Duration::from_secs(3600);
        } else {
            config.allow_direct = false;
        }
        jetstream.update_stream(config).await.unwrap();

        for role in [Role::router(), Role::worker(), Role::up()] {
            let mut process = rig.spawn(role);
            assert!(!process.ended().await.success());
            let error = process.prints("tidings: ").await;
            for named in [stream, field, "`tidings streams apply`"] {
                assert!(error.contains(named), "{named:?} is named: {error}");
            }
        }

        tidings(&["streams", "apply", "--nats", url]).await.lines();
    }
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _router = rig.run(Role::router()).await;
    let _worker = rig.run(Role::worker()).await;
    let ingest = rig.run(Role::ingest()).await;
    ingest.post(&event("on valid streams")).await.unwrap();
    receiver.accepts("on valid streams").await;
}

#[tokio::test]
async fn roles_with_the_same_settings_start_on_applied_streams() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    let file = rig.folder().join("settings.yaml");
    std::fs::write(
        &file,
        "ingest:\n  dedupe_interval: 90s\nnats:\n  storage_limit: 3GiB\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let _router = rig.run(Role::router().args(["--config", file])).await;

    tidings(&["streams", "apply", "--nats", url, "--config", file])
        .await
        .lines();

    let config = rig
        .jetstream()
        .await
        .get_stream("EVENTS")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(
        (config.duplicate_window, config.max_bytes),
        (Duration::from_secs(90), 1 << 30)
    );
    let _another = rig.run(Role::router().args(["--config", file])).await;
}

#[tokio::test]
async fn an_invalid_value_or_a_rejected_change_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    let apply = ["streams", "apply", "--nats", url];
    for (flag, value) in [
        ("--dedupe-interval", "5"),
        ("--dedupe-interval", "0s"),
        ("--storage-limit", "much"),
        ("--replicas", "0"),
    ] {
        tidings(&[&apply[..], &[flag, value]].concat())
            .await
            .assert_error_names(&[flag, value]);
    }
    // A single server supports one replica only.
    let rejected = tidings(&[&apply[..], &["--replicas", "3"]].concat()).await;
    assert_eq!(rejected.status, Some(2), "{rejected:?}");
    assert!(rejected.stderr.contains("replicas"), "{rejected:?}");
}
