//! A hub that is restored from a backup: nothing old overrides newer states.

use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidings_core::Message as _;
use tidings_core::wire::ConsumerPosition;
use tidings_rig::{Forge, Process, Rejection, Rig, Role, alert, event, eventually};

use crate::TIDINGS;
use crate::command::{text, tidings};

pub const COMMITS: [&str; 2] = [
    "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4",
    "1111d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4",
];

/// An event of a Kustomization for a commit at a second.
pub fn reconciled(commit: &str, second: u32, succeeded: bool) -> Value {
    let mut event = event(&format!("{commit} at {second}: {succeeded}"));
    event["timestamp"] = format!("2026-01-02T03:04:{second:02}Z").into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}")});
    if !succeeded {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

/// A hub whose server can be replaced by a backup.
pub struct Hub {
    pub rig: Rig,
    pub forge: Forge,
}

impl Hub {
    pub async fn start() -> Self {
        let (rig, forge) = (Rig::start(TIDINGS).await, Forge::start().await);
        Forge::put_secret(rig.rules());
        let provider = forge.provider("github");
        rig.rules().put([provider, alert("commits", "forge")]);
        Self { rig, forge }
    }

    pub async fn roles(&self) -> [Process; 3] {
        let roles = [Role::router(), Role::worker(), Role::ingest()];
        self.rig.run_all(roles).await
    }

    pub fn store(&self) -> PathBuf {
        self.rig.folder().join("jetstream")
    }

    fn backup(&self) -> PathBuf {
        self.rig.folder().join("backup")
    }

    pub async fn post(&self, ingest: &Process, event: Value) {
        assert_eq!(ingest.post(&event).await.unwrap().status, 202, "{event}");
    }

    /// Waits until the forge has these states, oldest first.
    pub async fn has(&self, expected: &[&str]) {
        eventually(&format!("the forge has {expected:?}"), async || {
            (self.forge.states() == expected).then_some(())
        })
        .await;
        self.rig.drained().await;
    }

    /// Waits until the router has recorded that it routed all events up to this sequence.
    pub async fn recorded(&self, sequence: u64) {
        let jetstream = self.rig.jetstream().await;
        eventually("the router records its position", async || {
            let bucket = jetstream.get_key_value("consumers").await.ok()?;
            let value = bucket.get("router").await.ok()??;
            let position = ConsumerPosition::decode(value).ok()?;
            (position.acknowledged == sequence).then_some(())
        })
        .await;
    }

    /// Replaces a folder of the server's store by that of the backup.
    fn restore(&self, folder: &str) {
        let store = self.store().join(folder);
        std::fs::remove_dir_all(&store).unwrap();
        copy(&self.backup().join(folder), &store);
    }

    pub async fn tool(&self, arguments: &[&str]) -> String {
        let ended = tidings(&[arguments, &["--nats", self.rig.url()]].concat()).await;
        ended.lines().join("\n")
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["-a", text(from), text(to)])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_new_state_is_newer_although_the_restored_events_have_lower_sequences() {
    let mut hub = Hub::start().await;
    let [commit, _] = COMMITS;
    let roles = hub.roles().await;
    hub.post(&roles[2], reconciled(commit, 1, true)).await;
    hub.has(&["success"]).await;
    drop(roles);
    hub.rig.nats().terminate().await;
    copy(&hub.store(), &hub.backup());
    hub.rig.nats().restart().await;
    let roles = hub.roles().await;
    for second in 10..15 {
        let mut progress = reconciled(commit, second, true);
        progress["reason"] = "Progressing".into();
        hub.post(&roles[2], progress).await;
    }
    hub.post(&roles[2], reconciled(commit, 30, false)).await;
    hub.has(&["success", "failure"]).await;
    hub.recorded(7).await;
    drop(roles);
    hub.rig.nats().terminate().await;
    hub.restore("jetstream/$G/streams/EVENTS");
    hub.rig.nats().restart().await;

    let router = hub.rig.spawn(Role::router());
    router.logs("consumer-position-unknown").await;
    let recreate = ["streams", "recreate-consumer", "--from-sequence", "2"];
    hub.tool(&recreate).await;
    router.ready().await;
    let _worker = hub.rig.run(Role::worker()).await;
    let ingest = hub.rig.run(Role::ingest()).await;
    hub.post(&ingest, reconciled(commit, 30, true)).await;

    hub.has(&["success", "failure", "success"]).await;
}

#[tokio::test]
async fn a_backup_overrides_no_newer_state_and_is_not_taken_for_what_services_show() {
    let mut hub = Hub::start().await;
    let [parked, shown] = COMMITS;
    let roles = hub.roles().await;
    hub.post(&roles[2], reconciled(shown, 1, false)).await;
    hub.has(&["failure"]).await;
    hub.forge.reject_writes(Some(Rejection {
        status: 503,
        headers: vec![("Retry-After", "8".to_owned())],
        body: "",
    }));
    hub.post(&roles[2], reconciled(parked, 1, false)).await;
    roles[1].logs("delivery-parked").await;
    drop(roles);
    hub.rig.nats().terminate().await;
    copy(&hub.store(), &hub.backup());
    let taken_at = Timestamp::now().to_string();
    hub.forge.reject_writes(None);
    hub.rig.nats().restart().await;
    let roles = hub.roles().await;
    hub.has(&["failure", "failure"]).await;
    for commit in COMMITS {
        hub.post(&roles[2], reconciled(commit, 10, true)).await;
    }
    hub.has(&["failure", "failure", "success", "success"]).await;
    drop(roles);
    hub.rig.nats().terminate().await;
    hub.restore("");

    hub.rig.nats().restart().await;
    hub.tool(&["streams", "restored", "--taken-at", &taken_at])
        .await;
    let roles = hub.roles().await;
    let dead = roles[1].logs("delivery-dead").await;
    hub.rig.drained().await;

    assert_eq!(dead.field("reason"), "restored");
    assert_eq!(hub.forge.states().len(), 4, "the newer state stays");
    // The record says that the service shows a failure. It shows a success.
    hub.post(&roles[2], reconciled(shown, 20, false)).await;
    let written = ["failure", "failure", "success", "success", "failure"];
    hub.has(&written).await;
    // An operator who knows better replays.
    hub.tool(&["dead", "replay", "--reason", "restored"]).await;
    hub.has(&[&written[..], &["failure"]].concat()).await;
}

#[tokio::test]
async fn workers_that_run_already_follow_what_was_restored() {
    let hub = Hub::start().await;
    let roles = hub.roles().await;
    hub.forge.reject_writes(Some(Rejection {
        status: 503,
        headers: vec![("Retry-After", "6".to_owned())],
        body: "",
    }));
    hub.post(&roles[2], reconciled(COMMITS[0], 1, false)).await;
    roles[1].logs("delivery-parked").await;
    hub.forge.reject_writes(None);
    let taken_at = Timestamp::now().to_string();

    hub.tool(&["streams", "restored", "--taken-at", &taken_at])
        .await;

    let dead = roles[1].logs("delivery-dead").await;
    assert_eq!(dead.field("reason"), "restored");
    assert!(hub.forge.states().is_empty());
}

#[tokio::test]
async fn a_backup_of_the_future_is_refused() {
    let hub = Hub::start().await;
    let _roles = hub.roles().await;
    let url = hub.rig.url();
    let future = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let restored = ["streams", "restored", "--nats", url, "--taken-at"];
    for (time, names) in [
        (future.to_string(), "past"),
        ("soon".to_owned(), "--taken-at"),
    ] {
        let ended = tidings(&[&restored[..], &[&time]].concat()).await;
        ended.assert_error_names(&[names]);
    }
}
