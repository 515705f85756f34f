//! What the API shows.

use serde_json::{Value, json};
use tidings_rig::{Receiver, Reply, Rig, alert, event, eventually, provider};

use super::client::Console;
use crate::TIDINGS;

/// A part of an address that must not be shown.
const SECRET: &str = "s3cr3t-part-of-the-address";

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().into_iter().flatten();
    items
        .find(|item| item["name"] == name)
        .unwrap_or(&Value::Null)
}

/// A console whose receiver rejects one Provider, and accepts another.
async fn bed() -> (Console, Receiver, Receiver) {
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.answer_with(Reply::Status(404));
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("good", &format!("{}/{SECRET}", good.url())),
        provider("bad", &format!("{}/{SECRET}", bad.url())),
        alert("all", "good"),
        alert("wrong", "bad"),
        alert("lost", "nobody").with("suspend", true),
    ]);
    (Console::start_on(rig).await, good, bad)
}

#[tokio::test]
async fn the_api_shows_rules_outcomes_and_dead_letters_without_secrets() {
    let (console, good, _bad) = bed().await;
    console.up.post(&event("an event")).await.unwrap();
    good.accepts("an event").await;
    console.rig.drained().await;

    let dead = console
        .eventually("/api/dead", |page| {
            let letters = page["deadLetters"].as_array()?;
            (letters.len() == 1).then(|| letters[0].clone())
        })
        .await;
    for (field, expected) in [
        ("reason", "not-found"),
        ("provider", "apps/bad"),
        ("alert", "apps/wrong"),
        ("object", "Kustomization apps/apps"),
        ("cluster", "default"),
    ] {
        assert_eq!(dead[field], expected, "{field} of {dead}");
    }
    let path = format!("/api/dead/{}", dead["sequence"]);
    let shown = console.json(&path).await;
    assert_eq!(shown["id"], dead["id"]);
    assert_eq!(shown["event"]["message"], "an event");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(console.get("/api/dead/9999").await.status, 404);
    assert_eq!(console.get("/api/dead/0").await.status, 404);

    let providers = console
        .eventually("/api/providers", |answer| {
            let providers = answer["providers"].clone();
            let is_seen = named(&providers, "bad")["seen"]["lastError"].is_object();
            let is_delivered = named(&providers, "good")["seen"]["lastDeliveryAt"].is_string();
            (is_seen && is_delivered).then_some(providers)
        })
        .await;
    assert_eq!(named(&providers, "bad")["dead"], 1);
    assert_eq!(named(&providers, "bad")["spec"]["type"], "generic");
    assert_eq!(named(&providers, "good")["dead"], 0);

    let alerts = console.json("/api/alerts").await;
    let all = named(&alerts["alerts"], "all");
    assert!(all["seen"]["lastMatchAt"].is_string(), "{all}");
    assert_eq!(all["spec"]["provider"], "apps/good");
    assert_eq!(
        named(&alerts["alerts"], "lost")["spec"]["hasProvider"],
        false
    );
    assert!(!alerts["problems"].as_array().unwrap().is_empty());

    // The first heartbeat and the answer that is kept for a moment may be missing or older.
    let overview = eventually("the process and the dead letter are shown", async || {
        let overview = console.json("/api/overview").await;
        let status = &overview["status"];
        let is_shown =
            status["processes"][0]["role"] == "up" && status["deadLetters"]["count"] == 1;
        is_shown.then_some(overview)
    })
    .await;
    let status = &overview["status"];
    let codes = status["problems"].as_array().unwrap().iter();
    assert!(
        codes
            .clone()
            .any(|problem| problem["code"] == "dead-letters")
    );
    assert!(!overview["samples"].as_array().unwrap().is_empty());
    for path in super::client::PATHS
        .iter()
        .filter(|path| **path != "/api/events")
    {
        let text = console.get(path).await.text;
        assert!(!text.contains(SECRET), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_trace_says_what_became_of_an_event() {
    let (console, good, _bad) = bed().await;
    console.up.post(&event("an event")).await.unwrap();
    good.accepts("an event").await;
    console.rig.drained().await;
    let path = "/api/trace?object=Kustomization/apps/apps";
    let trace = console
        .eventually(path, |trace| {
            let deliveries = trace["events"][0]["deliveries"].as_array()?;
            let has_ended = |it: &&Value| it["state"] == "dead" || it["state"] == "delivered";
            let ended = deliveries.iter().filter(has_ended).count();
            (ended == 2).then(|| trace["events"][0].clone())
        })
        .await;
    assert_eq!(trace["message"], "an event");
    let id = trace["id"].as_str().unwrap();
    let by_id = console.json(&format!("/api/trace?event={id}")).await;
    assert_eq!(by_id["events"][0]["id"], trace["id"]);
    let nothing = console.json("/api/trace?commit=0123456789").await;
    assert!(nothing["absence"].is_object(), "{nothing}");
    for wrong in [
        "",
        "event=1",
        "object=x",
        "event=0123456&commit=0123456",
        "limit=51",
    ] {
        let answer = console.get(&format!("/api/trace?{wrong}")).await;
        let expected = (400, "invalid-parameter".to_owned());
        assert_eq!(answer.error(), expected, "{wrong}");
    }
}

#[tokio::test]
async fn parked_deliveries_are_listed_by_provider() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let rig = Rig::start(TIDINGS).await;
    let retry = json!({"min": "1h", "max": "1h"});
    rig.rules().put([
        provider("hook", receiver.url()).with("retry", retry),
        alert("all", "hook"),
    ]);
    rig.leaves_deliveries(1, "the receiver does not accept it within the test");
    let console = Console::start_on(rig).await;
    console.up.post(&event("an event")).await.unwrap();
    let path = "/api/deliveries?state=parked&provider=apps/hook";
    let row = console
        .eventually(path, |answer| answer["deliveries"].get(0).cloned())
        .await;
    assert_eq!(
        (&row["waitsFor"], &row["attempts"]),
        (&"retry".into(), &1.into())
    );
    for path in [
        "/api/deliveries?state=ready",
        "/api/deliveries?provider=apps/other",
    ] {
        let answer = console.json(path).await;
        assert_eq!(
            answer,
            json!({"deliveries": [], "hasMore": false}),
            "{path}"
        );
    }
}

#[tokio::test]
async fn dead_letters_are_read_in_pages() {
    let (console, _good, _bad) = bed().await;
    for number in 0..5 {
        console
            .up
            .post(&event(&format!("event {number}")))
            .await
            .unwrap();
    }
    console
        .eventually("/api/dead", |page| (page["stored"] == 5).then_some(()))
        .await;
    let (mut after, mut sizes, mut ids) = (json!(0), Vec::new(), std::collections::BTreeSet::new());
    while !after.is_null() {
        let page = console
            .json(&format!("/api/dead?limit=2&after={after}"))
            .await;
        let letters = page["deadLetters"].as_array().unwrap();
        sizes.push(letters.len());
        ids.extend(letters.iter().map(|letter| letter["id"].to_string()));
        after = page["next"].clone();
    }
    assert_eq!((sizes, ids.len()), (vec![2, 2, 1], 5));
    let (mut before, mut sequences) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/dead?order=newest&limit=2&after={before}");
        let page = console.json(&path).await;
        let letters = page["deadLetters"].as_array().unwrap();
        sequences.extend(
            letters
                .iter()
                .map(|letter| letter["sequence"].as_u64().unwrap()),
        );
        match &page["next"] {
            Value::Null => break,
            next => before = next.to_string(),
        }
    }
    assert_eq!(sequences, [5, 4, 3, 2, 1]);
    for (filter, found) in [
        ("provider=apps/bad", 5),
        ("provider=apps/good", 0),
        ("reason=not-found", 5),
        ("reason=exhausted", 0),
        ("cluster=other", 0),
    ] {
        let page = console.json(&format!("/api/dead?{filter}")).await;
        assert_eq!(
            page["deadLetters"].as_array().map(Vec::len),
            Some(found),
            "{filter}"
        );
    }
}

#[tokio::test]
async fn parameters_have_bounds() {
    let console = Console::start().await;
    let long = format!("/api/events?text={}", "x".repeat(513));
    for path in [
        "/api/overview?x=1",
        "/api/dead?limit=1001",
        "/api/dead?limit=0",
        "/api/dead?after=-1",
        "/api/dead?order=random",
        "/api/dead?provider=bad",
        "/api/dead?reason=unknown",
        "/api/deliveries?limit=501",
        "/api/deliveries?state=other",
        "/api/deliveries?provider=a&provider=b",
        "/api/events?past=10001",
        "/api/events?outcomes=1",
        &long,
    ] {
        let answer = console.get(path).await;
        assert_eq!(
            answer.error(),
            (400, "invalid-parameter".to_owned()),
            "{path}"
        );
    }
    console
        .up
        .counts("tidings_console_requests_total", "invalid", 13.0)
        .await;
}
