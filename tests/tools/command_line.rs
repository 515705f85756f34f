//! Completions, man pages, the version, and the formats of lists.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_rig::{Receiver, Reply, Rig, alert, event, eventually, provider};
use tokio::process::Command;

use crate::TIDINGS;
use crate::command::{text, tidings};

/// Runs a command in a terminal, and prints what it wrote.
const IN_A_TERMINAL: &str = r#"
import os, pty, sys
def read(terminal):
    return os.read(terminal, 65536)
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))
"#;

#[tokio::test]
async fn completions_and_man_pages_name_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = tidings(&["completions", shell]).await;
        for name in ["trace", "deliveries", "--object"] {
            assert!(ended.stdout.contains(name), "{shell} completes {name}");
        }
        assert_eq!(ended.status, Some(0), "{ended:?}");
    }
    assert_eq!(tidings(&["completions", "tcl"]).await.status, Some(2));

    let folder = TempDir::new().unwrap();
    let ended = tidings(&["man", "--write", text(folder.path())]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    for page in ["tidings.1", "tidings-trace.1", "tidings-dead-replay.1"] {
        let page = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(page.contains(".TH"), "a man page");
    }
    assert!(tidings(&["man"]).await.stdout.contains(".TH tidings"));
}

#[tokio::test]
async fn the_version_has_a_commit() {
    let version = env!("CARGO_PKG_VERSION");
    let short = tidings(&["-V"]).await;
    assert_eq!(short.lines(), [format!("tidings {version}")]);
    let long = tidings(&["--version"]).await;
    let [line] = long.lines()[..] else {
        panic!("one line: {long:?}")
    };
    let commit = line.strip_prefix(&format!("tidings {version} ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap();
    let is_hash = commit.len() == 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{line}");
}

#[tokio::test]
async fn lists_are_json_as_a_whole_lines_of_json_or_a_table() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(400));
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(tidings_rig::Role::up()).await;
    for command in [
        &["dead", "list"][..],
        &["deliveries", "list"],
        &["providers", "circuits"],
    ] {
        let ended = list(&rig, command, "json").await;
        assert_eq!(ended.trim_end(), "[]", "{command:?}");
        assert_eq!(list(&rig, command, "jsonl").await, "");
    }
    for number in 0..2 {
        up.post(&event(&format!("rejected {number}")))
            .await
            .unwrap();
    }
    eventually("there are two dead letters", async || {
        (rig.dead_letters().await.len() == 2).then_some(())
    })
    .await;
    rig.drained().await;

    let whole: Value = serde_json::from_str(&list(&rig, &["dead", "list"], "json").await).unwrap();
    let lines = list(&rig, &["dead", "list"], "jsonl").await;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(whole, json!(lines));
    assert_eq!(lines.len(), 2);

    for (colors, expected) in [("", true), ("1", false)] {
        let ended = Command::new("python3")
            .args([
                "-c",
                IN_A_TERMINAL,
                TIDINGS,
                "dead",
                "list",
                "--nats",
                rig.url(),
            ])
            .env("NO_COLOR", colors)
            .output()
            .await
            .unwrap();
        let screen = String::from_utf8(ended.stdout).unwrap();
        let first = screen.lines().next().unwrap();
        assert!(
            first.contains("ID") && first.contains("PROVIDER"),
            "{screen}"
        );
        assert_eq!(screen.contains('\u{1b}'), expected, "{screen}");
        assert_eq!(screen.lines().count(), 3, "{screen}");
    }
}

async fn list(rig: &Rig, command: &[&str], output: &str) -> String {
    let fixed = ["--nats", rig.url(), "--output", output];
    let ended = tidings(&[command, &fixed].concat()).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    ended.stdout
}
