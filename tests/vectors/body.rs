//! Decodes a body into the form of the recording.

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::otlp;
use crate::sink::Received;

/// The body of a request in a recorded form; `None` if it has another form.
pub fn decode(request: &Received, form: &str) -> Option<Value> {
    let text = String::from_utf8_lossy(&request.body);
    if text.is_empty() {
        return None;
    }
    let content_type = request
        .header("content-type")
        .first()
        .cloned()
        .unwrap_or_default();
    let is_protobuf = content_type == "application/x-protobuf";
    let is_form = content_type.split(';').next().is_some_and(|kind| {
        kind.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    match form {
        "body_text" => Some(Value::from(text)),
        "body_form" if is_form => {
            let pairs = form_urlencoded::parse(&request.body)
                .map(|(key, value)| (key.into_owned(), Value::from(value)));
            Some(Value::Object(pairs.collect::<Map<_, _>>()))
        }
        "body_json" if is_protobuf => otlp::decode(&request.body),
        "body_json" if !is_form => serde_json::from_str(&text).ok(),
        "body_json_lines" if !is_form => {
            let lines: Result<Vec<Value>, _> = text
                .trim_end_matches('\n')
                .split('\n')
                .map(serde_json::from_str)
                .collect();
            lines.ok().map(Value::from)
        }
        _ => None,
    }
}
