//! `tidings streams apply`, and what differs at start.

use std::time::Duration;

use tidings_rig::{Receiver, Rig, Role, alert, event, provider};

use crate::TIDINGS;
use crate::command::tidings;

#[tokio::test]
async fn router_and_worker_refuse_streams_that_differ_until_they_are_changed_on_purpose() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    tidings(&["streams", "apply", "--nats", url]).await.lines();
    let jetstream = rig.jetstream().await;
    for (stream, change) in [
        ("EVENTS", "max_age is 3600s, expected 259200s"),
        ("DELIVERIES", "allow_direct is false, expected true"),
    ] {
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
            let mut refusing = rig.spawn(role);
            assert!(!refusing.ended().await.success());
            let told = refusing.prints("tidings: ").await;
            assert!(
                told.contains(&format!(
                    "the configuration of stream {stream} differs: {change}"
                )),
                "{told}"
            );
            assert!(
                told.contains("`tidings streams apply` changes it"),
                "{told}"
            );
        }

        tidings(&["streams", "apply", "--nats", url]).await.lines();
    }
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _router = rig.run(Role::router()).await;
    let _worker = rig.run(Role::worker()).await;
    let ingest = rig.run(Role::ingest()).await;
    ingest.post(&event("as it must be")).await.unwrap();
    receiver.accepts("as it must be").await;
}

#[tokio::test]
async fn what_is_applied_is_what_the_roles_want_with_the_same_settings() {
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
async fn what_cannot_be_applied_is_told() {
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
            .failed_naming(&[flag, value]);
    }
    // One server can't keep three copies.
    tidings(&[&apply[..], &["--replicas", "3"]].concat())
        .await
        .failed_naming(&["cannot use stream", "replicas"]);
}
