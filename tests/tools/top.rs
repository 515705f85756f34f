//! `tidings top`.

use tidings_rig::{Rig, eventually};
use tokio::process::Command;

use crate::TIDINGS;
use crate::command::{Following, tidings};

/// Runs a command in a terminal, presses q after a screen was drawn, and prints what it wrote.
const IN_A_TERMINAL: &str = r#"
import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
written = b""
while select.select([terminal], [], [], 60)[0]:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    is_first = b"LOST" not in written
    written += part
    if is_first and b"LOST" in written:
        os.write(terminal, b"q")
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(written)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[tokio::test]
async fn without_a_terminal_screens_follow_each_other_until_ctrl_c() {
    let (rig, _up) = Rig::up(TIDINGS, []).await;
    let url = rig.url();
    let mut top = Following::tidings(&["top", "--interval", "200ms", "--nats", url]);
    for _ in 0..3 {
        let screen = top.until("LOST DELIVERIES").await;
        assert!(
            screen.iter().any(|line| line.contains("router")),
            "{screen:?}"
        );
    }
    top.interrupt();
    assert!(top.ended().await.success());
}

#[tokio::test]
async fn in_a_terminal_it_draws_over_the_screen_and_ends_with_q() {
    let (rig, _up) = Rig::up(TIDINGS, []).await;
    let output = Command::new("python3")
        .args(["-c", IN_A_TERMINAL, TIDINGS, "top", "--nats", rig.url()])
        .env("TERM", "xterm")
        .kill_on_drop(true)
        .output();
    let output = output.await.expect("python3 can be started");
    let written = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{written}");
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    let drawn = written.find(enter).zip(written.rfind(leave));
    let (start, end) = drawn.unwrap_or_else(|| panic!("the screen is restored: {written:?}"));
    assert!(
        written[start..end].contains("LOST DELIVERIES"),
        "{written:?}"
    );
    assert!(written[start..end].contains("\u{1b}[H"), "{written:?}");
}

#[tokio::test]
async fn a_wrong_interval_is_refused() {
    for interval in ["0s", "2h", "often"] {
        let ended = tidings(&["top", "--interval", interval]).await;
        ended.assert_error_names(&["--interval"]);
    }
}

#[tokio::test]
async fn an_outage_is_shown_and_survived() {
    let (mut rig, _up) = Rig::up(TIDINGS, []).await;
    let url = rig.url().to_owned();
    let mut top = Following::tidings(&["top", "--interval", "200ms", "--nats", &url]);
    top.until("LOST DELIVERIES").await;
    rig.nats().kill().await;
    top.until("cannot read the status").await;
    rig.nats().restart().await;
    top.until("LOST DELIVERIES").await;
    top.interrupt();
    assert!(top.ended().await.success());
    eventually("the rig's server responds", async || {
        rig.jetstream().await.get_stream("EVENTS").await.ok()
    })
    .await;
}
