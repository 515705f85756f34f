//! `tidings dead`.

use serde_json::Value;
use tidings_rig::{
    NAMESPACE, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;
use crate::command::{Ended, tidings};

/// Part of an address; whoever knows it can post.
const IN_THE_PATH: &str = "T0PSECRETPATH";
/// A key of generic-hmac.
const TOKEN: &str = "t0psecrettoken";

/// Two letters: the provider `chat` has refused one, and `signed` lacks its token.
struct Graveyard {
    rig: Rig,
    chat: Receiver,
    signed: Receiver,
    up: Process,
}

impl Graveyard {
    async fn start() -> Self {
        let rig = Rig::start(TIDINGS).await;
        let chat = Receiver::script([Reply::Status(503), Reply::Status(400)]).await;
        let signed = Receiver::start().await;
        chat.answer_with(Reply::Status(400));
        rig.rules().put([provider("chat", "http://unused.invalid")
            .that_retries_soon()
            .with("secretRef", secret("chat-address"))]);
        rig.rules().put_text(
            "chat-address.json",
            &secret_text("chat-address", "address", &in_secret(&chat)),
        );
        rig.rules().put_text(
            "keys.json",
            &secret_text("keys", "address", &in_secret(&signed)),
        );
        let hmac = provider("signed", "http://unused.invalid").with("type", "generic-hmac".into());
        rig.rules().put([hmac.with("secretRef", secret("keys"))]);
        rig.rules()
            .put([alert("to-chat", "chat"), alert("to-signed", "signed")]);
        let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
        up.post(&event("unwanted")).await.unwrap();
        eventually("there are two letters", async || {
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

    /// `tidings dead …`; neither what it prints nor the log may tell a secret.
    async fn dead(&self, action: &str, more: &[&str]) -> Ended {
        let ended = tidings(&[&["dead", action, "--nats", self.rig.url()], more].concat()).await;
        let told = format!(
            "{}{}{}",
            ended.stdout,
            ended.stderr,
            self.up.log().join("\n")
        );
        for hidden in [IN_THE_PATH, TOKEN] {
            assert!(
                !told.contains(hidden),
                "{hidden} is told by `tidings dead {action}` or the log: {told}"
            );
        }
        ended
    }

    async fn letters(&self, more: &[&str]) -> Vec<Value> {
        self.dead("list", &[&["--output", "json"], more].concat())
            .await
            .json()
    }

    async fn reasons(&self, more: &[&str]) -> Vec<String> {
        let mut reasons: Vec<_> = self
            .letters(more)
            .await
            .iter()
            .map(|letter| string(&letter["reason"]))
            .collect();
        reasons.sort();
        reasons
    }
}

fn secret(name: &str) -> Value {
    serde_json::json!({ "name": name })
}

fn secret_text(name: &str, key: &str, value: &str) -> String {
    let metadata = serde_json::json!({"name": name, "namespace": NAMESPACE});
    serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {key: value}}).to_string()
}

fn in_secret(receiver: &Receiver) -> String {
    format!("{}/{IN_THE_PATH}", receiver.url())
}

fn string(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

#[tokio::test]
async fn filters_say_which_letters_are_meant() {
    let graveyard = Graveyard::start().await;
    let both = ["misconfigured", "rejected"];
    let id = string(&graveyard.letters(&["--reason", "rejected"]).await[0]["id"]);

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
        assert_eq!(graveyard.reasons(filter).await, expected, "with {filter:?}");
    }
    assert_eq!(
        graveyard.dead("list", &[]).await.lines().len(),
        2,
        "a line for each letter"
    );
    for (filter, told) in [
        (&["--reason", "bad"][..], "expected one of"),
        (&["--provider", "chat"], "NAMESPACE/NAME"),
        (&["--older-than", "long"], "--older-than"),
        (&["0123456789abcdef"], "0123456789abcdef"),
    ] {
        graveyard.dead("list", filter).await.failed_naming(&[told]);
    }
}

#[tokio::test]
async fn a_letter_tells_its_whole_story() {
    let graveyard = Graveyard::start().await;

    let letter = graveyard
        .dead("show", &["--reason", "rejected", "--output", "json"])
        .await
        .json()
        .remove(0);
    assert_eq!(letter["alert"], "apps/to-chat");
    assert_eq!(letter["provider"], "apps/chat");
    assert_eq!(letter["type"], "generic");
    assert_eq!(letter["cluster"], "hub");
    assert_eq!(letter["event"]["message"], "unwanted");
    assert_eq!(letter["event"]["involvedObject"]["name"], "apps");
    let attempts = letter["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt["status"].as_u64(), attempt["outcome"].as_str()))
        .collect();
    assert_eq!(
        told,
        [(Some(503), Some("retrying")), (Some(400), Some("dead"))]
    );
    let times: Vec<jiff::Timestamp> = attempts
        .iter()
        .map(|attempt| string(&attempt["startedAt"]).parse().unwrap())
        .collect();
    assert!(times[0] < times[1], "{times:?}");
    let [planned, died]: [jiff::Timestamp; 2] =
        ["plannedAt", "diedAt"].map(|field| string(&letter[field]).parse().unwrap());
    assert!(planned <= times[0] && times[1] <= died, "{letter}");

    let shown = graveyard.dead("show", &["--reason", "rejected"]).await;
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
    let shown = graveyard.dead("show", &["--reason", "misconfigured"]).await;
    assert!(
        shown.stdout.contains("token"),
        "it says that the token is missing: {}",
        shown.stdout
    );
}

#[tokio::test]
async fn a_replay_plans_anew_and_is_delivered_once_the_receiver_is_mended() {
    let graveyard = Graveyard::start().await;
    let before = graveyard.letters(&["--reason", "rejected"]).await.remove(0);
    let first = graveyard.chat.received()[0]
        .header("idempotency-key")
        .unwrap()
        .to_owned();
    assert_eq!(before["id"], first.as_str());

    // It is refused again: another letter, with an id and an age of its own.
    assert_eq!(
        graveyard
            .dead("replay", &["--provider", "apps/chat"])
            .await
            .lines(),
        ["1 dead letter replayed"]
    );
    graveyard.chat.receives(3).await;
    let after = eventually("it is a letter again", async || {
        graveyard.letters(&["--reason", "rejected"]).await.pop()
    })
    .await;
    assert_eq!(
        graveyard.letters(&[]).await.len(),
        2,
        "the replayed letter has left the list"
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
    assert!(planned > died, "its age counts from the replay: {after}");

    graveyard.chat.answer_with(Reply::Status(200));
    assert_eq!(
        graveyard
            .dead("replay", &[&string(&after["id"])])
            .await
            .lines(),
        ["1 dead letter replayed"]
    );
    let received = graveyard.chat.accepts("unwanted").await;
    let last = received.header("idempotency-key").unwrap();
    assert!(
        last != first && after["id"] != last,
        "{last} is an id of its own"
    );
    graveyard.rig.drained().await;
    assert_eq!(graveyard.reasons(&[]).await, ["misconfigured"]);
}

#[tokio::test]
async fn a_replay_after_the_secret_is_mended_is_delivered() {
    let graveyard = Graveyard::start().await;
    let metadata = serde_json::json!({"name": "keys", "namespace": NAMESPACE});
    let data = serde_json::json!({"address": in_secret(&graveyard.signed), "token": TOKEN});
    let mended = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
    graveyard
        .rig
        .rules()
        .put_text("keys.json", &mended.to_string());

    eventually(
        "the replay is delivered, as soon as the rules are read again",
        async || {
            graveyard
                .dead("replay", &["--reason", "misconfigured"])
                .await
                .lines();
            graveyard.rig.drained().await;
            (!graveyard.signed.accepted().is_empty()).then_some(())
        },
    )
    .await;

    assert!(
        graveyard.signed.accepted()[0]
            .header("x-signature")
            .is_some(),
        "it is signed"
    );
    assert_eq!(graveyard.reasons(&[]).await, ["rejected"]);
    assert_eq!(graveyard.signed.accepted().len(), 1);
}

#[tokio::test]
async fn a_dropped_letter_is_gone_and_nothing_goes_without_being_named() {
    let graveyard = Graveyard::start().await;
    for action in ["drop", "replay"] {
        graveyard
            .dead(action, &[])
            .await
            .failed_naming(&["--provider", "--all"]);
        graveyard
            .dead(action, &["0123456789abcdef"])
            .await
            .failed_naming(&["0123456789abcdef"]);
        graveyard
            .dead(action, &[""])
            .await
            .failed_naming(&["empty"]);
        graveyard
            .dead(action, &["--all", "--reason", "wrong"])
            .await
            .failed_naming(&["expected one of"]);
    }
    assert_eq!(graveyard.letters(&[]).await.len(), 2);

    assert_eq!(
        graveyard
            .dead("drop", &["--reason", "rejected"])
            .await
            .lines(),
        ["1 dead letter dropped"]
    );
    assert_eq!(graveyard.reasons(&[]).await, ["misconfigured"]);
    assert_eq!(
        graveyard
            .dead("drop", &["--reason", "rejected"])
            .await
            .lines(),
        ["0 dead letters dropped"]
    );
    assert_eq!(
        graveyard.dead("drop", &["--all"]).await.lines(),
        ["1 dead letter dropped"]
    );
    assert_eq!(
        graveyard.dead("list", &[]).await.lines(),
        Vec::<&str>::new()
    );
    assert_eq!(graveyard.chat.received().len(), 2, "nothing of it was sent");
}
