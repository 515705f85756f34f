//! `tidings up` with its embedded nats-server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidings_rig::{Ledger, Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// The file nats.json that `up` writes to its data folder.
fn contact(rig: &Rig) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(rig.folder().join("data/nats.json")).ok()?).ok()
}

fn pid(contact: &Value) -> u32 {
    u32::try_from(contact["pid"].as_u64().expect("nats.json has a process id")).unwrap()
}

/// The command line of a running process; `None` if it has ended or is a zombie.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " ")).filter(|line| !line.is_empty())
}

#[tokio::test]
async fn the_server_ends_with_a_killed_up_and_stored_events_are_delivered_later() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let mut up = rig.run(Role::up_with_own_server()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&up, (0..20).map(|number| format!("event {number}")))
        .await;
    let server = pid(&contact(&rig).unwrap());
    assert!(command_line(server).is_some_and(|line| line.contains("nats.conf")));

    up.kill().await;

    eventually("nats-server has ended", async || {
        command_line(server).is_none().then_some(())
    })
    .await;
    receiver.answer_with(Reply::Status(200));
    up.restart().await;
    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
}

#[tokio::test]
async fn the_server_is_restarted_when_it_dies() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up_with_own_server()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&up, (0..20).map(|number| format!("before {number}")))
        .await;
    let before = pid(&contact(&rig).unwrap());

    kill_process(Pid::from_raw(before.cast_signed()).unwrap(), Signal::KILL).unwrap();

    receiver.answer_with(Reply::Status(200));
    ledger
        .post_until_accepted(&up, (0..20).map(|number| format!("after {number}")))
        .await;
    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
    assert_ne!(pid(&contact(&rig).unwrap()), before);
    up.ready().await;
    up.logs("nats-server-exited").await;
}

#[tokio::test]
async fn a_changed_stream_of_the_embedded_server_is_updated() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up_with_own_server()).await;
    let contact = contact(&rig).unwrap();
    let login =
        async_nats::ConnectOptions::with_token(contact["token"].as_str().unwrap().to_owned());
    let client = login
        .connect(contact["url"].as_str().unwrap())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let config = async || {
        jetstream
            .get_stream("DEAD")
            .await
            .unwrap()
            .cached_info()
            .config
            .clone()
    };
    let expected = config().await;

    jetstream
        .update_stream(async_nats::jetstream::stream::Config {
            max_messages: 1,
            ..expected.clone()
        })
        .await
        .unwrap();

    eventually("the stream has its old configuration", async || {
        (config().await.max_messages == expected.max_messages).then_some(())
    })
    .await;
    up.ready().await;
}

#[tokio::test]
async fn the_token_is_stored_in_private_files_only() {
    let rig = Rig::start(TIDINGS).await;
    let mut up = rig
        .run(Role::up_with_own_server().args(["--log-level", "trace"]))
        .await;
    up.post(&event("with every log line")).await.unwrap();
    let contact = contact(&rig).unwrap();
    let token = contact["token"].as_str().unwrap();
    assert!(token.len() >= 32, "the token is long");
    let mode = |file: &str| {
        fs::metadata(rig.folder().join("data").join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("nats.json"), mode("nats.conf")), (0o600, 0o600));
    for process in [up.id(), pid(&contact)] {
        let line = command_line(process).expect("the process runs");
        assert!(!line.contains(token), "{line}");
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains(token));
    }
    async_nats::connect(contact["url"].as_str().unwrap())
        .await
        .expect_err("the server rejects clients without the token");

    assert!(up.terminate().await.success());

    let leaks: Vec<_> = up
        .log()
        .into_iter()
        .filter(|line| line.contains(token))
        .collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    assert!(
        !rig.folder().join("data/nats.json").exists(),
        "nats.json is removed at shutdown"
    );
}
