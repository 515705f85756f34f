//! The request of every provider type. The lines of an input are the object's name, the reason and
//! a value of the metadata; the rest is the message.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tidings_core::{AlertReference, Delivery, Event, ObjectReference};
use tidings_rules::{Options, ResolvedProvider, Rules, document};
use tidings_workers::attempt::{attempt_once, prepare};
use tidings_workers::http::Http;
use tidings_workers::notifier::{PROVIDERS, kinds};

use crate::runner::{Target, split};

/// The example Provider of each type, except types that refuse the placeholder keys.
static EXAMPLES: LazyLock<Vec<Arc<ResolvedProvider>>> = LazyLock::new(|| {
    let text: Vec<String> = PROVIDERS.iter().map(|row| row.example()).collect();
    let documents = document::read(
        &"examples.yaml".into(),
        text.join("---\n").as_bytes(),
        usize::MAX,
    );
    let rules = Rules::compile(&documents.objects, kinds(), &Options::default());
    let resolved = rules
        .providers()
        .filter_map(|provider| rules.resolve(&provider.namespace, &provider.name).ok());
    resolved
        .filter(|provider| prepare(provider.clone(), |_| Ok(Http::dry_run())).is_ok())
        .collect()
});

#[test]
fn every_type_turns_any_event_into_requests_with_valid_json() {
    Target {
        name: "formats",
        dictionary: &[
            "<",
            "&",
            "\"",
            "\\",
            "\u{0}",
            "\u{7f}",
            "\u{2028}",
            "\u{202e}",
            "🚀",
            "e\u{301}",
            "*_`~",
            "<@U1>",
            "@everyone",
            "](http://x)",
            "/",
            "../",
            "sha1:0123456789abcdef",
            "main@",
            "\n",
            "{{",
            "%s",
            "\u{ffff}",
        ],
        check,
    }
    .run();
}

fn check(input: &[u8]) {
    assert!(EXAMPLES.len() > 25, "most examples are usable");
    let (name, rest) = split(input);
    let (reason, rest) = split(rest.as_bytes());
    let (value, message) = split(rest.as_bytes());
    let object = ObjectReference {
        kind: "Kustomization".into(),
        namespace: "apps".into(),
        name,
        ..ObjectReference::default()
    };
    let event = Event {
        message,
        reason,
        severity: "error".into(),
        involved_object: Some(object),
        ..Event::default()
    };
    let metadata = ["revision", "summary", "change_request", "commit"];
    let delivery = Delivery {
        id: "fuzz".into(),
        metadata: metadata.map(|key| (key.to_owned(), value.clone())).into(),
        ..Delivery::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the runtime starts");
    for provider in EXAMPLES.iter() {
        runtime.block_on(attempt(provider, &delivery, &event));
    }
}

async fn attempt(provider: &Arc<ResolvedProvider>, delivery: &Delivery, event: &Event) {
    let http = Http::dry_run();
    let prepared = prepare(provider.clone(), |_| Ok(http.clone())).expect("it was prepared before");
    let (alert, texts) = (AlertReference::default(), prepared.texts(delivery, event));
    // Some types skip events without a commit or a change request.
    let _ = attempt_once(&prepared, &prepared.message(delivery, &texts, &alert)).await;
    for request in http.recorded() {
        let kind = request.headers.get("content-type");
        let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let is_valid =
            request.body.is_empty() || serde_json::from_slice::<Value>(&request.body).is_ok();
        assert!(!is_json || is_valid, "{}", provider.kind.name);
    }
}
