//! The commands of docs/operations.md that back up and restore a server over the network.

use std::path::Path;

use jiff::Timestamp;
use tidings_rig::{Receiver, Rejection, Reply, alert, event, eventually, provider, tool};
use tokio::process::Command;

use crate::command::text;
use crate::restored::{COMMITS, Hub, reconciled};

const BACK_UP: &str = "nats backup account DIR --force";
const WITHOUT_MEMORY: &str = "rmdir DIR/KV_heartbeats DIR/KV_hub";
const RESTORE: &str = "nats backup restore account DIR";

/// Runs a command of the documentation.
async fn documented(nats: &Path, command: &str, folder: &Path, url: &str) {
    let page = include_str!("../../docs/operations.md");
    assert!(page.contains(command), "docs/operations.md has {command:?}");
    let command = command.replace("DIR", text(folder));
    let (program, arguments) = command.split_once(' ').unwrap();
    let program = if program == "nats" {
        text(nats)
    } else {
        program
    };
    let mut ended = Command::new(program);
    ended.args(arguments.split(' ')).env("NATS_URL", url);
    let output = ended.output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Hub {
    /// Each stream on disk, with its configuration and the number of its messages.
    async fn stored(&self) -> Vec<String> {
        let jetstream = self.rig.jetstream().await;
        let mut streams = jetstream.streams();
        let mut stored = Vec::new();
        while let Some(stream) = futures::TryStreamExt::try_next(&mut streams).await.unwrap() {
            let is_on_disk =
                stream.config.storage == async_nats::jetstream::stream::StorageType::File;
            if is_on_disk {
                stored.push(format!("{:?}: {}", stream.config, stream.state.messages));
            }
        }
        stored.sort();
        stored
    }
}

#[tokio::test]
async fn what_the_documented_commands_back_up_is_restored_and_overrides_no_newer_state() {
    let Some(nats) = tool("nats-cli.sh") else {
        println!("skipped: the commands of a backup need `nats`");
        return;
    };
    let mut hub = Hub::start().await;
    let chat = Receiver::script([Reply::Status(404), Reply::RetryAfter(503, 6)]).await;
    hub.rig.rules().put([
        provider("hook", chat.url()).that_retries_soon(),
        alert("chat", "hook").with("inclusionList", serde_json::json!(["chat"])),
    ]);
    let [shown, parked] = COMMITS;
    let roles = hub.roles().await;
    hub.post(&roles[2], event("chat: dead")).await;
    roles[1].logs("delivery-dead").await;
    hub.post(&roles[2], reconciled(shown, 1, false)).await;
    hub.has(&["failure"]).await;
    hub.forge.reject_writes(Some(Rejection {
        status: 503,
        headers: vec![("Retry-After", "6".to_owned())],
        body: "",
    }));
    hub.post(&roles[2], reconciled(parked, 1, false)).await;
    hub.post(&roles[2], event("chat: parked")).await;
    eventually("both deliveries are parked", async || {
        (roles[1].log_events("delivery-parked").len() >= 2).then_some(())
    })
    .await;
    hub.recorded(4).await;
    drop(roles);

    let folder = hub.rig.folder().join("backup");
    let before = hub.stored().await;
    for command in [BACK_UP, WITHOUT_MEMORY] {
        documented(&nats, command, &folder, hub.rig.url()).await;
    }
    let taken_at = Timestamp::now().to_string();

    // Life goes on: what waited is delivered, and states change.
    hub.forge.reject_writes(None);
    let roles = hub.roles().await;
    chat.accepts("chat: parked").await;
    hub.has(&["failure", "failure"]).await;
    for commit in COMMITS {
        hub.post(&roles[2], reconciled(commit, 10, true)).await;
    }
    hub.has(&["failure", "failure", "success", "success"]).await;
    drop(roles);

    // The disk is lost.
    hub.rig.nats().terminate().await;
    std::fs::remove_dir_all(hub.store()).unwrap();
    hub.rig.nats().restart().await;
    documented(&nats, RESTORE, &folder, hub.rig.url()).await;
    assert_eq!(hub.stored().await, before);
    hub.tool(&["streams", "restored", "--taken-at", &taken_at])
        .await;
    let roles = hub.roles().await;

    let dead = roles[1].logs("delivery-dead").await;
    assert_eq!(dead.field("reason"), "restored");
    hub.rig.drained().await;
    assert_eq!(hub.forge.states().len(), 4, "the newer states stay");
    let accepted: Vec<_> = chat.accepted().iter().map(|it| it.message()).collect();
    assert_eq!(
        accepted,
        ["chat: parked", "chat: parked"],
        "it waited in the backup"
    );
    let reasons: Vec<_> = hub
        .rig
        .dead_letters()
        .await
        .iter()
        .map(|it| it.reason.clone())
        .collect();
    assert_eq!(
        reasons.len(),
        2,
        "that of the backup, and the old state: {reasons:?}"
    );
    // Routers continue after the events that were routed before the backup.
    let ingest = &roles[2];
    hub.post(ingest, event("chat: afterwards")).await;
    chat.accepts("chat: afterwards").await;
    hub.post(ingest, reconciled(shown, 20, false)).await;
    let states = ["failure", "failure", "success", "success", "failure"];
    hub.has(&states).await;
    assert_eq!(chat.accepted().len(), 3);
}
