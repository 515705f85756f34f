//! Any text is sent in a valid format and within the service's size limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;
use tidings_core::Event;
use tidings_rules::Family;
use tidings_workers::attempt::{Prepared, prepare};
use tidings_workers::http::{Http, Request};
use tidings_workers::message::render::{Link, RenderedMessage};
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::contract::limits::{BodyLimit, SizeUnit};

use crate::stated_limits::{BOUND_BY_PARTS, Count, STATED, Stated, UNLIMITED, sizes, values};
use crate::subject::{attempt_rendered, attempt_with, event, filled_example, http_types, resolve};

/// Whether the body is valid for its content type.
fn is_valid(request: &Request) -> bool {
    let kind = request
        .headers
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    match kind.split(';').next().unwrap_or_default() {
        _ if request.body.is_empty() => true,
        "application/json" | "application/atom+xml" => {
            serde_json::from_slice::<Value>(&request.body).is_ok()
        }
        "application/x-sentry-envelope" => {
            let lines = request
                .body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            lines
                .map(serde_json::from_slice::<Value>)
                .all(|line| line.is_ok())
        }
        "application/x-www-form-urlencoded" => request.body.is_ascii(),
        "application/x-protobuf" => true,
        _ => false,
    }
}

/// A type with the Provider of its example, which records its requests.
fn prepared(row: &ProviderType, http: &Http) -> Prepared {
    let provider = resolve(&filled_example(row)).unwrap();
    prepare(Arc::new(provider), |_| Ok(http.clone()))
        .unwrap_or_else(|error| panic!("{}: {error}", row.kind))
}

/// The requests of a type for an event with this additional metadata.
async fn requests(
    row: &ProviderType,
    event: &Event,
    metadata: &BTreeMap<String, String>,
) -> Vec<Request> {
    let http = Http::dry_run();
    let prepared = prepared(row, &http);
    let ended = attempt_with(&prepared, event, metadata).await;
    assert!(ended.is_ok(), "{}: {ended:?}", row.kind);
    http.recorded()
}

/// Asserts that every type's requests are within the limits of its row and of its vendor.
async fn assert_fits(event: &Event, metadata: &BTreeMap<String, String>) {
    for row in http_types() {
        for request in requests(row, event, metadata).await {
            assert!(is_valid(&request), "{}: {request:?}", row.kind);
            assert_within_limits(row, &request);
        }
    }
}

fn assert_within_limits(row: &ProviderType, request: &Request) {
    let stated = STATED.iter().filter(|(kind, ..)| *kind == row.kind);
    for limit in stated.copied().chain(limits_of(row)) {
        for size in sizes(request, &limit) {
            assert!(size <= limit.3, "{limit:?}: {size}");
        }
    }
}

/// The limits of a row. If only its parts are limited, they bound the body.
fn limits_of(row: &ProviderType) -> Vec<Stated> {
    let count = |unit| match unit {
        SizeUnit::Bytes => Count::Bytes,
        SizeUnit::Characters => Count::Characters,
        SizeUnit::Utf16 => Count::Utf16,
        SizeUnit::Items => Count::Items,
    };
    let mut limits: Vec<Stated> = row
        .size_limits
        .parts
        .iter()
        .map(|limit| (row.kind, limit.part, count(limit.unit), limit.most))
        .collect();
    match row.size_limits.body {
        BodyLimit::AtMost(unit, most) => limits.push((row.kind, "", count(unit), most)),
        BodyLimit::Parts => limits.push((row.kind, "", Count::Bytes, BOUND_BY_PARTS)),
        BodyLimit::Announced | BodyLimit::Unlimited(_) | BodyLimit::Unstated => {}
    }
    limits
}

fn run(check: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built")
        .block_on(check);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_fits_the_size_limits(
        piece in "(?s).{1,30}",
        times in 0usize..1_000,
        reason in "(?s).{0,20}",
        name in "\\PC{1,40}",
        metadata in proptest::collection::btree_map("[a-z\"\\\\é🚀]{1,12}", "(?s).{0,400}", 0..12),
    ) {
        let mut event = event("");
        event.message = piece.repeat(times);
        event.reason = reason;
        event.involved_object.get_or_insert_default().name = name;
        run(assert_fits(&event, &metadata));
    }
}

/// 2 MB of a text in pieces, some of which need escapes or several bytes.
fn two_megabytes(piece: &str) -> String {
    piece.repeat((2 << 20) / piece.len())
}

/// The longest names that Kubernetes allows, of which two differ in the last character only.
fn with_long_names(mut event: Event, last: char) -> Event {
    let object = event.involved_object.get_or_insert_default();
    object.kind = "K".repeat(63);
    object.namespace = "s".repeat(253);
    object.name = format!("{}{last}", "n".repeat(252));
    object.uid = String::new();
    event.cluster = "c".repeat(253);
    event.reason = "Reason".repeat(21);
    event.reporting_controller = "r".repeat(253);
    event
}

#[tokio::test]
async fn messages_of_two_megabytes_fit() {
    for piece in ["x", "\"é🚀\n<*\u{1}"] {
        assert_fits(&event(&two_megabytes(piece)), &BTreeMap::new()).await;
    }
}

#[tokio::test]
async fn long_names_fit_with_any_message() {
    for message in ["short", &two_megabytes("y")] {
        assert_fits(&with_long_names(event(message), 'a'), &BTreeMap::new()).await;
    }
}

#[tokio::test]
async fn long_texts_that_kubernetes_does_not_bound_fit() {
    let mut event = event("short");
    let object = event.involved_object.get_or_insert_default();
    (object.name, object.kind) = ("n".repeat(100_000), "K".repeat(100_000));
    event.reason = "Reason".repeat(20_000);
    event.reporting_controller = "r".repeat(100_000);
    event.reporting_instance = "i".repeat(100_000);
    let summary = BTreeMap::from([("summary".to_owned(), "s".repeat(100_000))]);
    assert_fits(&event, &summary).await;
}

#[tokio::test]
async fn much_metadata_fits() {
    let pair = |key: String, value: &str| (key, value.to_owned());
    let many = (0..20_000).map(|number| pair(format!("key-{number}"), "value"));
    let long = (0..30).map(|number| pair(format!("key-{number}"), &"v\"".repeat(50_000)));
    let long_keys = (0..30).map(|number| pair(format!("{number}{}", "k".repeat(50_000)), "v"));
    let all: [BTreeMap<_, _>; 3] = [many.collect(), long.collect(), long_keys.collect()];
    for metadata in all {
        assert_fits(&event("short"), &metadata).await;
        assert_fits(&event(&"z".repeat(100_000)), &metadata).await;
    }
}

#[tokio::test]
async fn templates_and_links_fit() {
    let rendered = RenderedMessage {
        title: Some("&amp;".repeat(256)),
        text: Some("t\n".repeat(32 << 10)),
        links: ["commit", "dashboard"]
            .map(|key| Link {
                key,
                label: "Link",
                url: format!("https://h.example/{}", "u".repeat(460)),
            })
            .into(),
        ..RenderedMessage::default()
    };
    let event = with_long_names(event("short"), 'a');
    for row in http_types() {
        let http = Http::dry_run();
        let prepared = prepared(row, &http);
        let none = BTreeMap::new();
        let ended = attempt_rendered(&prepared, &event, &none, |_| rendered.clone()).await;
        assert!(ended.is_ok(), "{}: {ended:?}", row.kind);
        for request in http.recorded() {
            assert_within_limits(row, &request);
        }
    }
}

#[tokio::test]
async fn ids_that_are_cut_stay_distinct() {
    for row in http_types() {
        let ids = row.size_limits.parts.iter().filter(|part| part.is_id);
        let ids: Vec<&str> = ids.map(|part| part.part).collect();
        if ids.is_empty() || row.kind == "zulip" {
            continue;
        }
        let mut seen = Vec::new();
        for last in ['a', 'b'] {
            let event = with_long_names(event("short"), last);
            let requests = requests(row, &event, &BTreeMap::new()).await;
            let values = |id: &&str| {
                let of_request = |request: &Request| values(request, id);
                requests.iter().flat_map(of_request).collect::<Vec<_>>()
            };
            seen.push(ids.iter().map(values).collect::<Vec<_>>());
        }
        assert_ne!(seen[0], seen[1], "{}", row.kind);
    }
}

#[test]
fn every_row_states_what_its_vendor_does() {
    for row in PROVIDERS {
        let limits = row.size_limits;
        assert_ne!(limits.body, BodyLimit::Unstated, "{}", row.kind);
        assert!(limits.source.starts_with("https://"), "{}", row.kind);
        assert!(!row.cut_at.is_empty(), "{}", row.kind);
        let is_unlimited = matches!(limits.body, BodyLimit::Unlimited(_));
        assert_eq!(is_unlimited, UNLIMITED.contains(&row.kind), "{}", row.kind);
        let is_stated = STATED.iter().any(|(kind, ..)| *kind == row.kind);
        assert!(is_stated || is_unlimited || !row.uses_http, "{}", row.kind);
    }
}

#[tokio::test]
async fn a_text_that_is_cut_ends_in_an_ellipsis() {
    // The other types do not send the message, or all of it.
    let sends_none = |row: &&ProviderType| {
        row.family == Family::CommitStatus
            || matches!(row.kind, "alertmanager" | "grafana" | "otel")
            || UNLIMITED.contains(&row.kind)
    };
    for piece in ["x", "é", "🚀", "\"", "\\", "\n.", "<", "*"] {
        let event = event(&piece.repeat(70_000));
        assert_fits(&event, &BTreeMap::new()).await;
    }
    for row in http_types().filter(|row| !sends_none(row)) {
        let times = if row.kind == "googlepubsub" { 4 } else { 1 };
        let event = event(&two_megabytes("x").repeat(times));
        let requests = requests(row, &event, &BTreeMap::new()).await;
        let is_marked = requests.iter().any(|request| {
            let mut text = String::from_utf8_lossy(&request.body).into_owned();
            if row.kind == "googlepubsub" {
                let data = values(request, "/messages/0/data");
                let data = STANDARD.decode(data[0].as_str().unwrap()).unwrap();
                text = String::from_utf8(data).unwrap();
            }
            text.contains('…') || text.contains("%E2%80%A6")
        });
        assert!(is_marked, "{}", row.kind);
    }
}

#[tokio::test]
async fn every_part_with_a_size_limit_is_sent() {
    let metadata = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    for row in http_types() {
        let mut event = event("Health check failed");
        let mut all = requests(row, &event, &metadata).await;
        event.severity = "info".into();
        all.extend(requests(row, &event, &metadata).await);
        for limit in limits_of(row) {
            // Sent only if the user configures them.
            let is_optional = ["/target_url", "/messages/0/attributes"]
                .iter()
                .any(|part| limit.1.starts_with(part));
            let is_sent = all.iter().any(|request| !sizes(request, &limit).is_empty());
            assert!(is_sent || is_optional, "{limit:?}: {all:?}");
        }
    }
}
