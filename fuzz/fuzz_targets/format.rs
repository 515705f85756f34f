//! Every provider type turns any event into requests with valid bodies.

#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tidings_core::{AlertReference, Delivery, Event, ObjectReference};
use tidings_rules::{Options, ResolvedProvider, Rules, document};
use tidings_workers::attempt::{attempt_once, prepare};
use tidings_workers::http::Http;
use tidings_workers::notifier::{PROVIDERS, kinds};
use tidings_workers::worker::notification;

/// The example Provider of each type, except types that reject the placeholder keys.
static PROVIDERS_OF_EXAMPLES: LazyLock<Vec<Arc<ResolvedProvider>>> = LazyLock::new(|| {
    let text: Vec<String> = PROVIDERS.iter().map(|row| row.example()).collect();
    let documents = document::read(&"examples.yaml".into(), text.join("---\n").as_bytes());
    let rules = Rules::compile(&documents.objects, kinds(), &Options::default());
    let resolved = rules
        .providers()
        .filter_map(|provider| rules.resolve(&provider.namespace, &provider.name).ok());
    resolved
        .filter(|provider| prepare(provider.clone(), |_| Ok(Http::dry_run())).is_ok())
        .collect()
});

fuzz_target!(|given: (&str, &str, &str, BTreeMap<String, String>)| {
    let (message, reason, name, metadata) = given;
    let object = ObjectReference {
        kind: "Kustomization".into(),
        name: name.into(),
        ..ObjectReference::default()
    };
    let event = Event {
        message: message.into(),
        reason: reason.into(),
        severity: "error".into(),
        involved_object: Some(object.clone()),
        ..Event::default()
    };
    let delivery = Delivery {
        id: "fuzz".into(),
        metadata,
        ..Delivery::default()
    };
    let alert = AlertReference::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("the runtime starts");
    for provider in PROVIDERS_OF_EXAMPLES.iter() {
        let http = Http::dry_run();
        let prepared = prepare(provider.clone(), |_| Ok(http.clone()))
            .expect("the same Provider was prepared before");
        // Some types skip events without a commit or a change request.
        let _ = runtime.block_on(attempt_once(
            &prepared,
            &notification(&delivery, &event, &object, &alert, &prepared),
        ));
        for request in http.recorded() {
            let is_json = request
                .headers
                .get("content-type")
                .is_some_and(|kind| kind == "application/json");
            let parsed = serde_json::from_slice::<serde_json::Value>(&request.body);
            assert!(!is_json || parsed.is_ok(), "{}", provider.kind.name);
        }
    }
});
