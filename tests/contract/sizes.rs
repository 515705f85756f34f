//! Any text is sent in a valid format and within the service's size limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;
use tidings_core::Event;
use tidings_workers::attempt::prepare;
use tidings_workers::http::{Http, Request};
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::contract::limits::SizeLimit;

use crate::subject::{attempt_with, event, filled_example, http_types, resolve};

/// The text in a part of the body.
fn text_of(request: &Request, part: &str) -> Option<String> {
    match part {
        "" => Some(String::from_utf8_lossy(&request.body).into_owned()),
        field if !field.starts_with('/') => {
            let mut pairs = url::form_urlencoded::parse(&request.body);
            pairs
                .find(|(name, _)| name == field)
                .map(|(_, value)| value.into_owned())
        }
        pointer => serde_json::from_slice::<Value>(&request.body)
            .ok()?
            .pointer(pointer)?
            .as_str()
            .map(str::to_owned),
    }
}

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

/// The requests of a type for an event with this additional metadata.
async fn requests(
    row: &ProviderType,
    event: &Event,
    metadata: &BTreeMap<String, String>,
) -> Vec<Request> {
    let provider = resolve(&filled_example(row)).unwrap();
    let http = Http::dry_run();
    let prepared = prepare(Arc::new(provider), |_| Ok(http.clone()))
        .unwrap_or_else(|error| panic!("{}: {error}", row.kind));
    let ended = attempt_with(&prepared, event, metadata).await;
    assert!(ended.is_ok(), "{}: {ended:?}", row.kind);
    http.recorded()
}

async fn assert_fits(event: &Event, metadata: &BTreeMap<String, String>) {
    for row in http_types() {
        let requests = requests(row, event, metadata).await;
        assert!(requests.iter().all(is_valid), "{}: {requests:?}", row.kind);
        for limit in row.size_limits {
            for size in sizes(&requests, limit) {
                assert!(size <= limit.most, "{} {limit:?}: {size}", row.kind);
            }
        }
    }
}

/// The sizes of the limited part in each of the requests.
fn sizes<'a>(requests: &'a [Request], limit: &'a SizeLimit) -> impl Iterator<Item = usize> + 'a {
    let texts = requests
        .iter()
        .filter_map(|request| text_of(request, limit.part));
    texts.map(|text| limit.unit.size(&text))
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
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
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

/// PagerDuty's summary is cut as Flux cuts it.
const CUT_WITHOUT_ELLIPSIS: &str = "pagerduty";

#[tokio::test]
async fn a_text_that_is_cut_ends_in_an_ellipsis() {
    for character in ["x", "é", "🚀", "\"", "\\", "\n.", "<", "*"] {
        let mut event = event("");
        event.message = character.repeat(70_000);
        assert_fits(&event, &BTreeMap::new()).await;
        for row in http_types() {
            let requests = requests(row, &event, &BTreeMap::new()).await;
            let is_cut = !row.size_limits.is_empty() && row.kind != CUT_WITHOUT_ELLIPSIS;
            let is_marked = |request: &Request| {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                text.contains('…') || text.contains("%E2%80%A6") || text.contains("\\u2026")
            };
            let is_marked = requests.iter().any(is_marked);
            assert!(is_marked || !is_cut, "{} {character:?}", row.kind);
        }
    }
}

#[tokio::test]
async fn every_part_with_a_size_limit_is_sent() {
    for row in http_types() {
        let requests = requests(row, &event("Health check failed"), &BTreeMap::new()).await;
        for limit in row.size_limits {
            let is_sent = sizes(&requests, limit).next().is_some();
            assert!(is_sent, "{} {limit:?}: {requests:?}", row.kind);
        }
    }
}
