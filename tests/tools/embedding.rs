//! `tidings up` with a nats-server of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidings_rig::{Ledger, Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// What `up` has written into its data folder.
fn contact(rig: &Rig) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(rig.folder().join("data/nats.json")).ok()?).ok()
}

fn pid(contact: &Value) -> u32 {
    u32::try_from(contact["pid"].as_u64().expect("there is a process id")).unwrap()
}

/// The command line of a process that runs; nothing when it has ended, waited for or not.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " ")).filter(|line| !line.is_empty())
}

#[tokio::test]
async fn its_server_dies_with_it_also_by_kill_9_and_nothing_stored_is_lost() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let mut up = rig.run(Role::up_alone()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_insistently(&up, (0..20).map(|number| format!("event {number}")))
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
async fn its_server_is_started_again_when_it_dies() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up_alone()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_insistently(&up, (0..20).map(|number| format!("before {number}")))
        .await;
    let before = pid(&contact(&rig).unwrap());

    kill_process(Pid::from_raw(before.cast_signed()).unwrap(), Signal::KILL).unwrap();

    receiver.answer_with(Reply::Status(200));
    ledger
        .post_insistently(&up, (0..20).map(|number| format!("after {number}")))
        .await;
    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
    assert_ne!(pid(&contact(&rig).unwrap()), before);
    up.ready().await;
    up.logs("nats-server-exited").await;
}

#[tokio::test]
async fn a_stream_of_its_server_that_somebody_changes_is_changed_back() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up_alone()).await;
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
    let must = config().await;

    jetstream
        .update_stream(async_nats::jetstream::stream::Config {
            max_messages: 1,
            ..must.clone()
        })
        .await
        .unwrap();

    eventually("it is changed back", async || {
        (config().await.max_messages == must.max_messages).then_some(())
    })
    .await;
    up.ready().await;
}

#[tokio::test]
async fn its_token_is_in_a_private_file_and_nowhere_else() {
    let rig = Rig::start(TIDINGS).await;
    let mut up = rig
        .run(Role::up_alone().args(["--log-level", "trace"]))
        .await;
    up.post(&event("with every log line")).await.unwrap();
    let contact = contact(&rig).unwrap();
    let token = contact["token"].as_str().unwrap();
    assert!(token.len() >= 32, "it can't be guessed");
    let mode = |file: &str| {
        fs::metadata(rig.folder().join("data").join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("nats.json"), mode("nats.conf")), (0o600, 0o600));
    for process in [up.id(), pid(&contact)] {
        let line = command_line(process).expect("it runs");
        assert!(!line.contains(token), "{line}");
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains(token));
    }
    async_nats::connect(contact["url"].as_str().unwrap())
        .await
        .expect_err("nobody gets in without the token");

    assert!(up.terminate().await.success());

    let told: Vec<_> = up
        .log()
        .into_iter()
        .filter(|line| line.contains(token))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    assert!(
        !rig.folder().join("data/nats.json").exists(),
        "it is gone with the server"
    );
}
