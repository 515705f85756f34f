//! Texts of others, in events and in answers of services, do not control the terminal.

use std::fs;

use serde_json::json;
use tidings_rig::{Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;
use crate::command::{Following, tidings};

/// Clears the screen, forges a line, sets the title, and reverses the direction of the text.
const HOSTILE: &str = "a\u{1b}[2J\r\nFORGED\u{9b}2J\u{1b}]0;title\u{7}\u{202e}b\u{2066}c\u{2028}d";

/// Asserts that an output has only characters that a terminal shows, and no line of the hostile
/// text.
fn assert_shown(what: &str, output: &str) {
    assert!(output.contains("FORGED"), "{what}: {output:?}");
    let acts = |character: char| {
        let is_line_end = character == '\n';
        (character.is_control() && !is_line_end) || "\u{202e}\u{2066}\u{2028}".contains(character)
    };
    assert!(!output.contains(acts), "{what}: {output:?}");
    let is_forged = output.lines().any(|line| line.starts_with("FORGED"));
    assert!(!is_forged, "{what}: {output:?}");
}

async fn with_a_dead_letter(rig: &Rig) -> Process {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Text(400, HOSTILE));
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    let mut hostile = event(HOSTILE);
    hostile["reason"] = HOSTILE.into();
    hostile["metadata"] = json!({HOSTILE: HOSTILE});
    up.post(&hostile).await.unwrap();
    eventually("there is a dead letter", async || {
        (rig.dead_letters().await.len() == 1).then_some(())
    })
    .await;
    rig.drained().await;
    up
}

#[tokio::test]
async fn events_and_answers_do_not_control_the_terminal() {
    let rig = Rig::start(TIDINGS).await;
    let up = with_a_dead_letter(&rig).await;
    let url = rig.url();

    for output in ["text", "json"] {
        for action in ["list", "show"] {
            let arguments = ["dead", action, "--nats", url, "--output", output];
            let ended = tidings(&arguments).await;
            assert_shown(&format!("{arguments:?}"), &ended.stdout);
        }
        let mut tap =
            Following::tidings(&["tap", "--nats", url, "--since", "1h", "--output", output]);
        assert_shown("tap", &tap.next().await);
    }
    assert_shown("the log", &up.log().join("\n"));
}

#[tokio::test]
async fn the_event_of_a_test_does_not_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    fs::write(&file, event(HOSTILE).to_string()).unwrap();
    let rules = folder.path().to_str().unwrap();
    for output in ["text", "json"] {
        let event = file.to_str().unwrap();
        let arguments = [
            "test", "--rules", rules, "--event", event, "--output", output,
        ];
        let ended = tidings(&arguments).await;
        assert_shown(output, &ended.stdout);
    }
}
