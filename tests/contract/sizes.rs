//! Any text goes out in a form that is valid, within what the service takes, and cut where it must
//! be.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;
use tidings_core::Event;
use tidings_workers::attempt::prepare;
use tidings_workers::http::{Http, Request};
use tidings_workers::notifier::contract::ProviderType;

use crate::subject::{attempt_with, event, filled_example, http_types, resolve};

/// How a service counts.
type Unit = fn(&str) -> usize;

const BYTES: Unit = str::len;
const CHARS: Unit = |text| text.chars().count();
const UTF16: Unit = |text| text.encode_utf16().count();

/// Documented limits (the sources are in the types' files): of the text at a pointer into the body,
/// or of the whole body.
const LIMITS: &[(&str, &str, Unit, usize)] = &[
    ("datadog", "/text", CHARS, 4_000),
    ("discord", "/attachments/0/text", UTF16, 4_096),
    ("discord", "/username", UTF16, 80),
    ("googlechat", "", BYTES, 32_000),
    (
        "googlechat",
        "/cards/0/sections/0/widgets/0/textParagraph/text",
        UTF16,
        4_096,
    ),
    ("lark", "", BYTES, 20 * 1024),
    ("matrix", "", BYTES, 65_536),
    ("msteams", "", UTF16, 28 * 1024 / 2),
    ("opsgenie", "/message", CHARS, 130),
    ("opsgenie", "/description", CHARS, 15_000),
    ("pagerduty", "/payload/summary", CHARS, 1_024),
    ("rocket", "/attachments/0/text", UTF16, 5_000),
    ("slack", "", CHARS, 40_000),
    ("slack", "/attachments/0/text", UTF16, 8_000),
    ("telegram", "/text", UTF16, 4_096),
    ("webex", "/markdown", BYTES, 7_439),
    ("zoom", "/content/body/0/text", UTF16, 4_000),
    ("zulip", "content", CHARS, 10_000),
];

/// The text at a place of a body.
fn text_at(request: &Request, pointer: &str) -> Option<String> {
    match pointer {
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

/// Whether a body is what its type says.
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

/// What a type sends for an event with this metadata beside its own.
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
        for (_, pointer, unit, limit) in LIMITS.iter().filter(|(kind, ..)| *kind == row.kind) {
            for text in requests
                .iter()
                .filter_map(|request| text_at(request, pointer))
            {
                assert!(
                    unit(&text) <= *limit,
                    "{} {pointer}: {} of {limit}",
                    row.kind,
                    unit(&text)
                );
            }
        }
    }
}

fn run(check: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made")
        .block_on(check);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_fits_whole_or_cut(
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

#[tokio::test]
async fn what_is_cut_says_so() {
    for letter in ["x", "é", "🚀", "\"", "\\", "\n.", "<", "*"] {
        let mut event = event("");
        event.message = letter.repeat(70_000);
        assert_fits(&event, &BTreeMap::new()).await;
        for row in http_types().filter(|row| {
            LIMITS.iter().any(|(kind, ..)| *kind == row.kind) && row.kind != "pagerduty"
        }) {
            let requests = requests(row, &event, &BTreeMap::new()).await;
            let is_marked = |request: &Request| {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                text.contains('…') || text.contains("%E2%80%A6") || text.contains("\\u2026")
            };
            assert!(requests.iter().any(is_marked), "{} {letter:?}", row.kind);
        }
    }
}

#[test]
fn every_limit_is_of_a_text_that_is_there() {
    for (kind, pointer, ..) in LIMITS {
        let row = http_types().find(|row| row.kind == *kind).unwrap();
        run(async {
            let requests = requests(row, &event("Health check failed"), &BTreeMap::new()).await;
            assert!(
                requests
                    .iter()
                    .any(|request| text_at(request, pointer).is_some()),
                "{kind} {pointer}: {requests:?}"
            );
        });
    }
}
