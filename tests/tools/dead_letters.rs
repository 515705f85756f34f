//! `tidings dead`.

use serde_json::{Value, json};
use tidings_rig::{
    Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider, secret,
};

use crate::TIDINGS;
use crate::command::{Ended, tidings};

/// A secret part of an address.
const SECRET_PATH: &str = "T0PSECRETPATH";
/// The secret token of a provider of type generic-hmac.
const TOKEN: &str = "t0psecrettoken";

/// Two dead letters: the receiver of `chat` rejected one, and `signed` has no token.
struct TwoDeadLetters {
    rig: Rig,
    chat: Receiver,
    signed: Receiver,
    up: Process,
}

impl TwoDeadLetters {
    async fn start() -> Self {
        let rig = Rig::start(TIDINGS).await;
        let chat = Receiver::script([Reply::Status(503), Reply::Status(400)]).await;
        let signed = Receiver::start().await;
        chat.answer_with(Reply::Status(400));
        rig.rules().put([provider("chat", "http://unused.invalid")
            .that_retries_soon()
            .with("secretRef", json!({"name": "chat-address"}))]);
        rig.rules().put([
            secret("chat-address", json!({"address": secret_address(&chat)})),
            secret("keys", json!({"address": secret_address(&signed)})),
        ]);
        rig.rules().put([provider("signed", "http://unused.invalid")
            .with("type", "generic-hmac")
            .with("secretRef", json!({"name": "keys"}))]);
        rig.rules()
            .put([alert("to-chat", "chat"), alert("to-signed", "signed")]);
        let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
        up.post(&event("unwanted")).await.unwrap();
        eventually("there are two dead letters", async || {
            (rig.dead_letters().await.len() == 2).then_some(())
        })
        .await;
        rig.drained().await;
        Self {
            rig,
            chat,
            signed,
            up,
        }
    }

    /// Runs `tidings dead`, and asserts that neither its output nor the log contains a secret.
    async fn dead(&self, action: &str, more: &[&str]) -> Ended {
        let ended = tidings(&[&["dead", action, "--nats", self.rig.url()], more].concat()).await;
        let printed = format!(
            "{}{}{}",
            ended.stdout,
            ended.stderr,
            self.up.log().join("\n")
        );
        for secret in [SECRET_PATH, TOKEN] {
            assert!(
                !printed.contains(secret),
                "`tidings dead {action}` or the log contains {secret}: {printed}"
            );
        }
        ended
    }

    async fn list(&self, more: &[&str]) -> Vec<Value> {
        self.dead("list", &[&["--output", "jsonl"], more].concat())
            .await
            .json()
    }

    async fn reasons(&self, more: &[&str]) -> Vec<String> {
        let mut reasons: Vec<_> = self
            .list(more)
            .await
            .iter()
            .map(|dead_letter| string(&dead_letter["reason"]))
            .collect();
        reasons.sort();
        reasons
    }
}

fn secret_address(receiver: &Receiver) -> String {
    format!("{}/{SECRET_PATH}", receiver.url())
}

/// The number that a command prints first.
fn number(ended: &Ended) -> usize {
    let [line] = ended.lines()[..] else {
        panic!("one line is printed: {ended:?}")
    };
    let number = line.split(' ').next().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("the line begins with a number: {line}"))
}

fn string(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

#[tokio::test]
async fn filters_select_dead_letters() {
    let setup = TwoDeadLetters::start().await;
    let both = ["misconfigured", "rejected"];
    let id = string(&setup.list(&["--reason", "rejected"]).await[0]["id"]);

    for (filter, expected) in [
        (&[][..], &both[..]),
        (&["--provider", "apps/chat"], &both[1..]),
        (&["--provider", "apps/signed"], &both[..1]),
        (&["--provider", "other/chat"], &[]),
        (&["--reason", "misconfigured"], &both[..1]),
        (&["--reason", "exhausted"], &[]),
        (&["--newer-than", "1h"], &both),
        (&["--older-than", "1h"], &[]),
        (
            &["--provider", "apps/chat", "--reason", "misconfigured"],
            &[],
        ),
        (&[&id[..8]], &both[1..]),
    ] {
        assert_eq!(setup.reasons(filter).await, expected, "with {filter:?}");
    }
    assert_eq!(
        setup.dead("list", &[]).await.lines().len(),
        2,
        "one line for each dead letter"
    );
    for (filter, named) in [
        (&["--reason", "bad"][..], "--reason"),
        (&["--provider", "chat"], "--provider"),
        (&["--older-than", "long"], "--older-than"),
        (&["0123456789abcdef"], "0123456789abcdef"),
    ] {
        setup
            .dead("list", filter)
            .await
            .assert_error_names(&[named]);
    }
}

#[tokio::test]
async fn show_prints_the_event_and_every_attempt() {
    let setup = TwoDeadLetters::start().await;

    let dead_letter = setup
        .dead("show", &["--reason", "rejected", "--output", "jsonl"])
        .await
        .json()
        .remove(0);
    assert_eq!(dead_letter["alert"], "apps/to-chat");
    assert_eq!(dead_letter["provider"], "apps/chat");
    assert_eq!(dead_letter["type"], "generic");
    assert_eq!(dead_letter["cluster"], "hub");
    assert_eq!(dead_letter["event"]["message"], "unwanted");
    assert_eq!(dead_letter["event"]["involvedObject"]["name"], "apps");
    let attempts = dead_letter["attempts"].as_array().unwrap();
    let results: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt["status"].as_u64(), attempt["outcome"].as_str()))
        .collect();
    assert_eq!(
        results,
        [(Some(503), Some("retrying")), (Some(400), Some("dead"))]
    );
    let times: Vec<jiff::Timestamp> = attempts
        .iter()
        .map(|attempt| string(&attempt["startedAt"]).parse().unwrap())
        .collect();
    assert!(times[0] < times[1], "{times:?}");
    let [planned, died]: [jiff::Timestamp; 2] =
        ["plannedAt", "diedAt"].map(|field| string(&dead_letter[field]).parse().unwrap());
    assert!(planned <= times[0] && times[1] <= died, "{dead_letter}");

    let shown = setup.dead("show", &["--reason", "rejected"]).await;
    for part in [
        "unwanted",
        "Kustomization apps/apps",
        "apps/to-chat",
        "apps/chat",
        "hub",
        "rejected",
        "attempt 1",
        "503",
        "attempt 2",
        "400",
    ] {
        assert!(
            shown.stdout.contains(part),
            "{part:?} is shown: {}",
            shown.stdout
        );
    }
    let shown = setup.dead("show", &["--reason", "misconfigured"]).await;
    assert!(
        shown.stdout.contains("token"),
        "the missing token is named: {}",
        shown.stdout
    );
}

#[tokio::test]
async fn the_event_of_a_dead_letter_is_known_even_if_it_is_large_and_no_longer_stored() {
    let receiver = Receiver::script([Reply::Status(400)]).await;
    let rules = [provider("hook", receiver.url()), alert("all", "hook")];
    let (rig, up) = Rig::up(TIDINGS, rules).await;
    let message = format!("build failed: {}", "x".repeat(100_000));
    up.post(&event(&message)).await.unwrap();
    receiver.receives(1).await;
    rig.drained().await;
    let dead = async |action: &str, output: &str| {
        let arguments = ["dead", action, "--nats", rig.url(), "--output", output];
        tidings(&arguments).await
    };

    let whole = dead("show", "jsonl").await.json().remove(0);
    assert_eq!(whole["event"]["message"], message.as_str());
    assert_eq!(whole["isExcerpt"], false);
    assert_eq!(
        rig.outcomes().await[0].cluster,
        whole["cluster"].as_str().unwrap()
    );

    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    events.purge().await.unwrap();
    for action in ["list", "show"] {
        let left = dead(action, "jsonl").await.json().remove(0);
        assert_eq!(left["isExcerpt"], true);
        assert_eq!(left["cluster"], whole["cluster"]);
        for field in ["involvedObject", "reason", "severity", "timestamp"] {
            assert_eq!(left["event"][field], whole["event"][field], "{field}");
        }
        let beginning = string(&left["event"]["message"]);
        let beginning = beginning.trim_end_matches('…');
        assert!(beginning.len() > 500 && message.starts_with(beginning));
    }
    let shown = dead("show", "text").await.stdout;
    for part in [
        "Kustomization apps/apps",
        "ReconciliationSucceeded",
        "build failed",
    ] {
        assert!(shown.contains(part), "{part:?} is shown: {shown}");
    }
}

#[tokio::test]
async fn a_replay_is_a_new_delivery_and_succeeds_when_the_receiver_accepts_it() {
    let setup = TwoDeadLetters::start().await;
    let before = setup.list(&["--reason", "rejected"]).await.remove(0);
    let first = setup.chat.received()[0]
        .header("idempotency-key")
        .unwrap()
        .to_owned();
    assert_eq!(before["id"], first.as_str());

    // The receiver rejects it again: the new dead letter has its own id and age.
    let replayed = setup.dead("replay", &["--provider", "apps/chat"]).await;
    assert_eq!(number(&replayed), 1);
    setup.chat.receives(3).await;
    let after = eventually("the replayed delivery is a dead letter again", async || {
        setup.list(&["--reason", "rejected"]).await.pop()
    })
    .await;
    assert_eq!(
        setup.list(&[]).await.len(),
        2,
        "the replayed dead letter is removed from the list"
    );
    assert_ne!(after["id"], before["id"]);
    assert_eq!(after["eventId"], before["eventId"]);
    assert_eq!(
        (&after["generation"], &after["attempt"]),
        (&1.into(), &1.into()),
        "{after}"
    );
    let [planned, died]: [jiff::Timestamp; 2] =
        [&after["plannedAt"], &before["diedAt"]].map(|time| string(time).parse().unwrap());
    assert!(planned > died, "its age starts with the replay: {after}");

    setup.chat.answer_with(Reply::Status(200));
    let replayed = setup.dead("replay", &[&string(&after["id"])]).await;
    assert_eq!(number(&replayed), 1);
    let received = setup.chat.accepts("unwanted").await;
    let last = received.header("idempotency-key").unwrap();
    assert!(
        last != first && after["id"] != last,
        "the delivery has a new id: {last}"
    );
    setup.rig.drained().await;
    assert_eq!(setup.reasons(&[]).await, ["misconfigured"]);
}

#[tokio::test]
async fn a_replay_succeeds_after_the_secret_is_complete() {
    let setup = TwoDeadLetters::start().await;
    let complete = json!({"address": secret_address(&setup.signed), "token": TOKEN});
    setup.rig.rules().put([secret("keys", complete)]);

    eventually(
        "a replay after the rules are read again is delivered",
        async || {
            setup
                .dead("replay", &["--reason", "misconfigured"])
                .await
                .lines();
            setup.rig.drained().await;
            (!setup.signed.accepted().is_empty()).then_some(())
        },
    )
    .await;

    assert!(
        setup.signed.accepted()[0].header("x-signature").is_some(),
        "the delivery is signed"
    );
    assert_eq!(setup.reasons(&[]).await, ["rejected"]);
    assert_eq!(setup.signed.accepted().len(), 1);
}

#[tokio::test]
async fn drop_deletes_dead_letters_and_needs_a_filter() {
    let setup = TwoDeadLetters::start().await;
    for action in ["drop", "replay"] {
        setup
            .dead(action, &[])
            .await
            .assert_error_names(&["--provider", "--all"]);
        setup
            .dead(action, &["0123456789abcdef"])
            .await
            .assert_error_names(&["0123456789abcdef"]);
        setup.dead(action, &[""]).await.assert_error_names(&["ID"]);
        setup
            .dead(action, &["--all", "--reason", "wrong"])
            .await
            .assert_error_names(&["--reason"]);
    }
    assert_eq!(setup.list(&[]).await.len(), 2);

    let rejected = ["--reason", "rejected"];
    let confirmed = [&rejected[..], &["--yes"]].concat();
    assert_eq!(number(&setup.dead("drop", &confirmed).await), 1);
    assert_eq!(setup.reasons(&[]).await, ["misconfigured"]);
    assert_eq!(number(&setup.dead("drop", &confirmed).await), 0);
    assert_eq!(number(&setup.dead("drop", &["--all", "--yes"]).await), 1);
    assert_eq!(setup.dead("list", &[]).await.lines(), Vec::<&str>::new());
    assert_eq!(setup.chat.received().len(), 2, "drop sends nothing");
}

#[tokio::test]
async fn drop_needs_a_confirmation_and_a_dry_run_changes_nothing() {
    let setup = TwoDeadLetters::start().await;
    for filter in ["--all", "--reason=rejected", "--alert=apps/to-chat"] {
        setup
            .dead("drop", &[filter])
            .await
            .assert_error_names(&["--yes", "--dry-run"]);
    }
    for action in ["drop", "replay"] {
        let listed = setup
            .dead(action, &["--dry-run", "--provider=apps/chat"])
            .await;
        let lines = listed.lines();
        assert_eq!(lines.len(), 2, "a dead letter and their number: {lines:?}");
        assert!(lines[0].contains("apps/chat"), "{lines:?}");
    }
    setup
        .dead("drop", &["--yes"])
        .await
        .assert_error_names(&["--all"]);
    assert_eq!(setup.list(&[]).await.len(), 2);
}

#[tokio::test]
async fn names_that_do_not_exist_are_refused() {
    let setup = TwoDeadLetters::start().await;
    for action in ["replay", "drop"] {
        for (filter, similar) in [
            ("--provider=apps/chta", "apps/chat"),
            ("--provider=other/chat", "apps/chat"),
            ("--alert=apps/to-chats", "apps/to-chat"),
        ] {
            let refused = setup.dead(action, &[filter]).await;
            assert_eq!(refused.status, Some(2), "{refused:?}");
            refused.assert_error_names(&[similar]);
        }
        setup
            .dead(action, &["--alert=apps/unrelated-name"])
            .await
            .assert_error_names(&["apps/unrelated-name"]);
    }
    let listed = setup.dead("list", &["--provider=apps/chta"]).await;
    assert!(listed.lines().is_empty(), "{listed:?}");
    assert!(listed.stderr.contains("apps/chat"), "a hint: {listed:?}");
    assert_eq!(setup.list(&["--alert=apps/to-chat"]).await.len(), 1);

    setup
        .rig
        .rules()
        .put([provider("spare", "http://unused.invalid")]);
    eventually("a Provider without any delivery is known", async || {
        let listed = setup.dead("replay", &["--provider=apps/spare"]).await;
        (listed.status == Some(0)).then_some(())
    })
    .await;
}
