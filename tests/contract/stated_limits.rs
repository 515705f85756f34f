//! What each vendor accepts, written down from its documentation a second time, so that a wrong row
//! in the table of types fails a test.

use serde_json::Value;
use tidings_workers::http::Request;

/// How a vendor counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Bytes,
    Characters,
    Utf16,
    Items,
}

use Count::{Bytes, Characters, Items, Utf16};

/// A type, a part of its body, and the most that its vendor accepts there. An empty part is the
/// whole body.
pub type Stated = (&'static str, &'static str, Count, usize);

/// The types whose receiver is the user's own.
pub const UNLIMITED: &[&str] = &["generic", "generic-hmac"];

/// What the parts of a type may add up to if its vendor does not limit the body. GitLab accepts
/// notes of 1 MB, of which each byte may be six in JSON.
pub const BOUND_BY_PARTS: usize = 6_100_000;

pub const STATED: &[Stated] = &[
    ("alertmanager", "", Bytes, 104_857_600),
    ("azuredevops", "/context/name", Characters, 255),
    ("azuredevops", "/context/genre", Characters, 255),
    ("azuredevops", "/description", Characters, 255),
    ("azureeventhub", "", Bytes, 1_048_576),
    ("bitbucket", "/key", Characters, 40),
    ("bitbucket", "/name", Characters, 255),
    ("bitbucket", "/description", Characters, 255),
    ("bitbucketserver", "/key", Characters, 255),
    ("bitbucketserver", "/name", Characters, 255),
    ("bitbucketserver", "/description", Characters, 255),
    ("datadog", "/title", Characters, 100),
    ("datadog", "/text", Characters, 4_000),
    ("datadog", "/tags/*", Characters, 200),
    ("discord", "/username", Characters, 80),
    ("discord", "/attachments/0/author_name", Characters, 256),
    ("discord", "/attachments/0/text", Characters, 4_096),
    ("discord", "/attachments/0/fields", Items, 25),
    ("discord", "/attachments/0/fields/*/title", Characters, 256),
    (
        "discord",
        "/attachments/0/fields/*/value",
        Characters,
        1_024,
    ),
    ("gitea", "/context", Characters, 255),
    ("gitea", "/description", Characters, 255),
    ("giteapullrequestcomment", "/body", Bytes, 65_535),
    ("github", "/context", Characters, 255),
    ("github", "/description", Characters, 140),
    ("githubdispatch", "/event_type", Characters, 100),
    ("githubdispatch", "/client_payload", Bytes, 65_535),
    ("githubdispatch", "/client_payload", Items, 10),
    ("githubpullrequestcomment", "/body", Characters, 65_536),
    ("gitlab", "/name", Characters, 255),
    ("gitlab", "/description", Characters, 255),
    ("gitlab", "/target_url", Characters, 255),
    ("gitlabmergerequestcomment", "/body", Characters, 1_000_000),
    ("googlechat", "", Bytes, 32_000),
    (
        "googlechat",
        "/cards/0/sections/0/widgets/0/textParagraph/text",
        Characters,
        4_096,
    ),
    ("googlechat", "/cards/0/sections/*/widgets", Items, 100),
    ("googlepubsub", "", Bytes, 10_000_000),
    ("grafana", "/tags", Bytes, 500),
    ("grafana", "/text", Bytes, 65_535),
    ("incident.io", "", Bytes, 512_000),
    ("incident.io", "/title", Characters, 255),
    ("incident.io", "/deduplication_key", Characters, 255),
    ("lark", "", Bytes, 20_000),
    ("matrix", "", Bytes, 65_536),
    ("msteams", "", Utf16, 28 * 1024 / 2),
    ("opsgenie", "/message", Characters, 130),
    ("opsgenie", "/alias", Characters, 512),
    ("opsgenie", "/description", Characters, 15_000),
    ("opsgenie", "/details", Characters, 8_000),
    ("otel", "", Bytes, 20_971_520),
    ("pagerduty", "", Bytes, 512_000),
    ("pagerduty", "/payload/summary", Characters, 1_024),
    ("pagerduty", "/dedup_key", Characters, 255),
    ("rocket", "/attachments/0/text", Characters, 5_000),
    ("sentry", "", Bytes, 1_000_000),
    ("sentry", "/transaction", Characters, 200),
    ("sentry", "/environment", Characters, 64),
    ("sentry", "/tags/*", Characters, 200),
    ("slack", "", Characters, 40_000),
    ("slack", "/attachments/0/text", Characters, 8_000),
    ("telegram", "/text", Utf16, 4_096),
    ("webex", "/markdown", Bytes, 7_439),
    ("zoom", "/content/head/text", Characters, 4_000),
    ("zoom", "/content/body/*/text", Characters, 4_000),
    ("zoom", "/content/body/1/items/*/value", Characters, 4_000),
    ("zulip", "/content", Characters, 10_000),
    ("zulip", "/topic", Characters, 60),
];

impl Count {
    fn of_text(self, text: &str) -> usize {
        match self {
            Bytes => text.len(),
            Characters => text.chars().count(),
            Utf16 => text.encode_utf16().count(),
            Items => 0,
        }
    }

    fn of(self, value: &Value) -> usize {
        match (self, value) {
            (Items, Value::Array(items)) => items.len(),
            (Items, Value::Object(fields)) => fields.len(),
            (_, Value::String(text)) => self.of_text(text),
            (_, other) => self.of_text(&other.to_string()),
        }
    }
}

/// The sizes of a part in a request.
pub fn sizes(request: &Request, (_, part, count, _): &Stated) -> Vec<usize> {
    if part.is_empty() {
        return vec![count.of_text(&whole(request))];
    }
    values(request, part)
        .iter()
        .map(|value| count.of(value))
        .collect()
}

/// The values of a part in a request.
pub fn values(request: &Request, part: &str) -> Vec<Value> {
    let steps: Vec<&str> = part.split('/').skip(1).collect();
    select(&document(request), &steps)
}

/// The body, or the item of a Sentry envelope.
fn whole(request: &Request) -> String {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    match kind(request).as_str() {
        "application/x-sentry-envelope" => text.lines().nth(2).unwrap_or_default().to_owned(),
        // Replacement characters would make it longer.
        "application/x-protobuf" => "x".repeat(request.body.len()),
        _ => text,
    }
}

/// The body as JSON; a form as an object.
fn document(request: &Request) -> Value {
    match kind(request).as_str() {
        "application/x-www-form-urlencoded" => url::form_urlencoded::parse(&request.body)
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => serde_json::from_str(&whole(request)).unwrap_or_default(),
    }
}

fn kind(request: &Request) -> String {
    let kind = request
        .headers
        .get("content-type")
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next();
    kind.unwrap_or_default().to_owned()
}

/// The values of a pointer in which `*` stands for every element.
fn select(value: &Value, steps: &[&str]) -> Vec<Value> {
    let Some((step, rest)) = steps.split_first() else {
        return vec![value.clone()];
    };
    let inner: Vec<&Value> = match (*step, value) {
        ("*", Value::Array(items)) => items.iter().collect(),
        ("*", Value::Object(fields)) => fields.values().collect(),
        (step, value) => value.pointer(&format!("/{step}")).into_iter().collect(),
    };
    inner
        .into_iter()
        .flat_map(|value| select(value, rest))
        .collect()
}
