//! Templates and links, and what happens when they are invalid.

use serde_json::{Value, json};
use tidings_rig::{
    Forge, Manifest, Receiver, Reply, Rig, Role, Status, alert, config_map, event, eventually,
    provider,
};

use crate::TIDINGS;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

fn slack(receiver: &Receiver) -> Manifest {
    provider("chat", receiver.url())
        .with("type", "slack")
        .that_retries_soon()
}

fn inline(text: &str) -> Value {
    json!({"inline": text})
}

/// A ConfigMap `texts` with a template in the key `short`.
fn texts(template: &str) -> Manifest {
    config_map("texts", json!({"short": template}))
}

/// The attachment texts of the accepted Slack messages, sorted.
fn accepted_texts(receiver: &Receiver) -> Vec<String> {
    let text = |received: tidings_rig::Received| {
        received.json()["attachments"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let mut texts: Vec<String> = receiver.accepted().into_iter().map(text).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn a_template_of_the_alert_overrides_that_of_the_provider() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([slack(&receiver).with("template", inline("by default: {{ event.message }}"))]);
    let own =
        inline("{% set title = 'T' %}of the Alert {{ alert.name }}: {{ name }} in {{ cluster }}");
    rig.rules().put([
        alert("own", "chat").with("template", own),
        alert("without", "chat"),
    ]);
    let up = rig.run(Role::up()).await;

    up.post(&event("done")).await.unwrap();

    receiver.receives(2).await;
    rig.drained().await;
    assert_eq!(
        accepted_texts(&receiver),
        ["by default: done", "of the Alert own: apps in default"]
    );
    assert!(
        receiver
            .received()
            .iter()
            .any(|received| received.json()["attachments"][0]["author_name"] == "T")
    );
    assert!(rig.outcomes().await.iter().all(|outcome| {
        outcome
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.template_error.is_empty())
    }));
}

#[tokio::test]
async fn a_parked_delivery_uses_the_template_of_its_next_attempt() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([texts("old")]);
    let reference = json!({"configMapKeyRef": {"name": "texts", "key": "short"}});
    rig.rules().put([
        slack(&receiver),
        alert("all", "chat").with("template", reference),
    ]);
    let up = rig.run(Role::up()).await;
    up.post(&event("done")).await.unwrap();
    assert_eq!(
        receiver.receives(1).await[0].json()["attachments"][0]["text"],
        "old"
    );

    rig.rules().put([texts("new")]);

    eventually("an attempt has the new text", async || {
        receiver
            .received()
            .last()
            .is_some_and(|received| received.json()["attachments"][0]["text"] == "new")
            .then_some(())
    })
    .await;
    receiver.answer_with(Reply::Status(200));
    rig.drained().await;
    assert_eq!(accepted_texts(&receiver), ["new"]);
}

#[tokio::test]
async fn a_template_that_fails_is_replaced_by_the_standard_text() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([texts("text")]);
    let reference = |key: &str| json!({"configMapKeyRef": {"name": "texts", "key": key}});
    let endless =
        "{% for a in event.message %}{% for b in event.message %}{{ a }}{% endfor %}{% endfor %}";
    rig.rules().put([
        slack(&receiver),
        alert("endless", "chat").with("template", inline(endless)),
        alert("missing", "chat").with("template", reference("long")),
        alert("syntax", "chat").with("template", inline("{{ event.message")),
        alert("wrong", "chat").with("template", inline("{{ event.no.such }}")),
    ]);
    let up = rig.run(Role::up()).await;
    let message = "m".repeat(400);

    up.post(&event(&message)).await.unwrap();

    receiver.receives(4).await;
    rig.drained().await;
    assert_eq!(
        accepted_texts(&receiver),
        vec![message; 4],
        "the standard text"
    );
    let outcomes = eventually("each attempt has an outcome", async || {
        Some(rig.outcomes().await).filter(|outcomes| outcomes.len() == 4)
    })
    .await;
    for outcome in outcomes {
        let (alert, attempt) = (
            outcome.alert.unwrap_or_default().name,
            outcome.attempt.unwrap_or_default(),
        );
        let expected = match alert.as_str() {
            "endless" => "fuel",
            "missing" => "ConfigMap apps/texts",
            _ => "line 1: ",
        };
        assert_eq!(attempt.outcome, "delivered", "{alert}");
        assert!(
            attempt.template_error.contains(expected),
            "{alert}: {}",
            attempt.template_error
        );
    }
    up.counts(
        "tidings_worker_template_errors_total",
        "type=\"slack\"",
        4.0,
    )
    .await;
    up.logs_with("rule-problem", [("problem", "spec.template.inline")])
        .await;
}

#[tokio::test]
async fn links_are_enabled_by_settings_or_provider() {
    let rig = Rig::start(TIDINGS).await;
    let [receiver, without] = [Receiver::start().await, Receiver::start().await];
    let quiet = provider("quiet", without.url())
        .with("type", "slack")
        .with("links", false);
    rig.rules().put([
        slack(&receiver),
        quiet,
        alert("all", "chat"),
        alert("quiet", "quiet"),
    ]);
    let pattern = "https://grafana.example.com/d/flux?ns={{ namespace }}&rev={{ short_commit }}";
    let up = rig
        .run(
            Role::up()
                .env("TIDINGS_LINKS__ENABLED", "true")
                .env("TIDINGS_LINKS__DASHBOARD", pattern),
        )
        .await;
    let mut done = event("done");
    done["metadata"] = json!({
        "kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}"),
        "event.toolkit.fluxcd.io/repository": "ssh://git@gitlab.com/acme/sub/deploy.git",
    });

    up.post(&done).await.unwrap();

    let attachment = receiver.receives(1).await[0].json()["attachments"][0].clone();
    let page = format!("https://gitlab.com/acme/sub/deploy/-/commit/{COMMIT}");
    let buttons = json!([
        {"type": "button", "text": "Commit", "url": page},
        {"type": "button", "text": "Dashboard", "url": "https://grafana.example.com/d/flux?ns=apps&rev=8ba2d1c"},
    ]);
    assert_eq!(
        (&attachment["text"], &attachment["actions"]),
        (&json!("done"), &buttons)
    );
    assert_eq!(
        without.receives(1).await[0].json()["attachments"][0].get("actions"),
        None
    );
}

#[tokio::test]
async fn an_invalid_link_pattern_is_rejected_at_start() {
    let rig = Rig::start(TIDINGS).await;
    let mut up = rig.spawn(Role::up().env("TIDINGS_LINKS__COMMIT", "https://h/{{ commit"));

    assert!(!up.ended().await.success());

    up.prints("links.commit: line 1: ").await;
}

#[tokio::test]
async fn commit_status_options_add_a_pending_state_a_qualified_id_and_a_target_url() {
    let rig = Rig::start(TIDINGS).await;
    let forge = Forge::start().await;
    let target = "https://d.example.com/{{ cluster }}/{{ name }}";
    let options = json!({"pending": true, "id": "qualified", "targetURL": target});
    rig.rules().put([
        forge.provider("github").with("commitStatus", options),
        alert("commits", "forge"),
    ]);
    Forge::put_secret(rig.rules());
    let up = rig.run(Role::up().args(["--cluster", "eu-1"])).await;

    for (second, reason) in [
        (1, "Progressing"),
        (2, "ReconciliationSucceeded"),
        (3, "ReconciliationSucceeded"),
    ] {
        let mut event = event(&format!("{reason} {second}"));
        event["reason"] = reason.into();
        event["timestamp"] = format!("2026-01-02T03:04:0{second}Z").into();
        event["metadata"] =
            json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
        up.post(&event).await.unwrap();
        rig.drained().await;
    }

    let written = forge.contents().statuses.clone();
    let status = |state: &str, description: &str| {
        let (context, target) = (
            "eu-1/apps/kustomization/apps/",
            "https://d.example.com/eu-1/apps",
        );
        (
            state.to_owned(),
            description.to_owned(),
            context.to_owned(),
            target.to_owned(),
        )
    };
    let sent = |status: &Status| {
        let text = |key: &str| status.entry[key].as_str().unwrap_or_default().to_owned();
        // The rest derives from the Provider's uid.
        let context = text("context")
            .trim_end_matches(|character: char| character != '/')
            .to_owned();
        (
            text("state"),
            text("description"),
            context,
            text("target_url"),
        )
    };
    let expected = [
        status("pending", "progressing"),
        status("success", "reconciliation succeeded"),
    ];
    assert_eq!(
        written.iter().map(sent).collect::<Vec<_>>(),
        expected,
        "the third event changes nothing"
    );
}

#[tokio::test]
async fn a_slow_template_delays_no_other_delivery() {
    let rig = Rig::start(TIDINGS).await;
    let [chat, hook] = [Receiver::start().await, Receiver::start().await];
    let replaced = "long|replace('m','mmmm')|replace('n','')|replace('m','n')|replace('n','m')";
    let template = "{% set long %}LONG{% endset %}\
                    {% for a in long|truncate(900) %}{% if REPLACED %}{% endif %}{% endfor %}done";
    let slow = template
        .replace("LONG", &"mn".repeat(6 << 10))
        .replace("REPLACED", replaced);
    rig.rules().put([
        slack(&chat).with("template", inline(&slow)),
        alert("to-chat", "chat"),
    ]);
    let to_hook = json!([{"kind": "HelmRelease", "name": "*"}]);
    rig.rules().put([
        provider("hook", hook.url()),
        alert("to-hook", "hook").with("eventSources", to_hook),
    ]);
    let up = rig.run(Role::up().env("TOKIO_WORKER_THREADS", "1")).await;
    up.post(&event("slow")).await.unwrap();
    eventually("the template is being rendered", async || {
        (up.metric("tidings_worker_deliveries_in_flight", "").await > 0.5).then_some(())
    })
    .await;

    let mut quick = event("quick");
    quick["involvedObject"]["kind"] = "HelmRelease".into();
    up.post(&quick).await.unwrap();
    hook.accepts("quick").await;

    assert_eq!(chat.count(), 0, "the template is still being rendered");
}
