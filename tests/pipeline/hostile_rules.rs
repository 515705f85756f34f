//! A tenant's rules take neither the time nor the memory of others.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidings_rig::{
    Manifest, Process, Receiver, Rig, Role, alert, event, eventually, eventually_within, provider,
};
use tidings_rules::testing::disorder;
use tokio::time::timeout;

use crate::TIDINGS;

const HOSTILE: &str = "hostile";

/// An event about an object of the hostile namespace.
fn hostile_event(message: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"]["namespace"] = HOSTILE.into();
    event
}

fn hostile_alert(patterns: Vec<String>) -> Manifest {
    let alert = alert("costly", "hook").in_namespace(HOSTILE);
    alert.with("inclusionList", patterns)
}

/// The most memory that the process had so far, in MiB.
fn peak_memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("a number of KiB") / 1024
}

/// Asks for liveness and readiness until `done`. Each answer must come soon.
async fn stays_ready(up: &Process, done: &AtomicBool) -> usize {
    let client = reqwest::Client::new();
    let mut answers = 0;
    while !done.load(Ordering::Relaxed) {
        for path in ["livez", "readyz"] {
            let request = client.get(format!("{}/{path}", up.admin())).send();
            let answer = timeout(Duration::from_secs(10), request).await;
            let answer = answer.expect("answers in time").expect("answers");
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
        }
        answers += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answers
}

#[tokio::test]
async fn patterns_that_take_too_many_steps_hold_up_nobody() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let patterns = (0..40).map(|number| format!("[ab]*a[ab]{{900}}c{number}"));
    rig.rules().put([
        provider("hook", receiver.url()),
        alert("neighbor", "hook"),
        hostile_alert(patterns.collect()),
    ]);
    let up = rig.run(Role::up()).await;
    let done = AtomicBool::new(false);

    let attack = async {
        for number in 1..=4 {
            let answer = up.post(&hostile_event(&disorder(number, 400_000))).await;
            assert_eq!(answer.unwrap().status, 202);
        }
        for number in 0..20 {
            up.post(&event(&format!("neighbor {number}")))
                .await
                .unwrap();
        }
        receiver.receives(20).await;
        eventually("all verdicts are counted", async || {
            let verdict = "verdict=\"pattern-too-costly\"";
            let counted = up.metric("tidings_router_verdicts_total", verdict).await;
            (counted > 3.5).then_some(())
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let ((), answers) = tokio::join!(attack, stays_ready(&up, &done));

    assert!(answers > 0);
    let logged = up.logs("pattern-too-costly").await;
    assert_eq!(logged.field("alert"), "hostile/costly");
    assert!(logged.field("fields").starts_with("spec.inclusionList[0] "));
    assert_eq!(receiver.count(), 20);
    up.post(&hostile_event("a short message is decided"))
        .await
        .unwrap();
    eventually("the other verdict", async || {
        let verdict = "verdict=\"message-not-included\"";
        let counted = up.metric("tidings_router_verdicts_total", verdict).await;
        (counted > 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_alert_with_thousands_of_large_patterns_is_refused_and_others_change_meanwhile() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let hook = || provider("hook", receiver.url());
    rig.rules()
        .put([hook(), hostile_alert(vec!["kept".into()])]);
    rig.rules().put_text(
        "hostile-hook.json",
        &hook().in_namespace(HOSTILE).to_string(),
    );
    let up = rig.run(Role::up()).await;

    let large = (0..2500).map(|number| format!("{number:04}\\pL{{140}}"));
    rig.rules().put([hostile_alert(large.collect())]);
    let problem = up.logs("rule-problem").await;
    assert!(
        problem.field("field").starts_with("spec.inclusionList["),
        "{problem:?}"
    );
    assert_eq!(problem.field("object"), "Alert hostile/costly");
    rig.rules().put([alert("neighbor", "hook")]);
    let mut posted = 0;
    eventually("the neighbor's Alert is in effect", async || {
        posted += 1;
        up.post(&event(&format!("neighbor {posted}")))
            .await
            .unwrap();
        (receiver.count() > 0).then_some(())
    })
    .await;
    up.post(&hostile_event("the last good state is kept"))
        .await
        .unwrap();
    receiver.accepts("the last good state is kept").await;

    let peak = peak_memory(&up);
    assert!(peak < 300, "{peak} MiB");
}

#[tokio::test]
async fn links_to_the_rules_folder_itself_are_read_once_and_limits_keep_the_last_rules() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let folder = rig.rules().folder().to_owned();
    for name in ["a", "b", "c", "d"] {
        symlink(".", folder.join(name)).unwrap();
    }
    let up = rig.run(Role::up()).await;
    up.post(&event("through links")).await.unwrap();
    receiver.accepts("through links").await;
    assert_eq!(up.log_events("rule-problem").len(), 0);

    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.yaml"), "").unwrap();
    symlink(outside.path(), folder.join("outside")).unwrap();
    let problem = up.logs("rule-problem").await;
    assert!(problem.field("file").ends_with("/outside"), "{problem:?}");

    fs::create_dir_all(folder.join("deep/".repeat(17))).unwrap();
    let limit = Duration::from_secs(30);
    eventually_within(limit, "readiness names the folder", async || {
        let readiness = up.readiness().await;
        assert_eq!(readiness.status, 200, "the last rules stay in effect");
        (readiness.body.contains("/deep/deep") && readiness.body.contains("16 folders"))
            .then_some(())
    })
    .await;
    up.post(&event("with the last rules")).await.unwrap();
    receiver.accepts("with the last rules").await;
    fs::remove_dir_all(folder.join("deep")).unwrap();
    eventually_within(limit, "the folder is read again", async || {
        (!up.readiness().await.body.contains("/deep")).then_some(())
    })
    .await;
}
