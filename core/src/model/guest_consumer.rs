//! Checks the request of a guest of the hub, a member or a tap of a fleet, for a consumer.
//!
//! The NATS server permits a guest one name and one filter, which are in the subject. It does not
//! check the body. A consumer that *pushes* would send the guest's events to any subject of the
//! hub's account that has a subscriber, and the server subscribes to the requests about each
//! consumer. So a guest gets consumers that are pulled, with bounded queues, and nothing else.

use serde_json::{Map, Value};

use crate::model::access::API;

/// The prefix of the subjects of these requests in the hub's account.
pub const PREFIX: &str = "tidings.guests.CONSUMER.CREATE.EVENTS.";
/// The most bytes of a request.
pub const LARGEST: usize = 16 << 10;

/// The fields that a guest may choose, with the largest number where one is bounded. Times are in
/// nanoseconds.
const FIELDS: [(&str, Option<u64>); 19] = [
    ("name", None),
    ("durable_name", None),
    ("description", None),
    ("deliver_policy", None),
    ("opt_start_seq", None),
    ("opt_start_time", None),
    ("ack_policy", None),
    ("ack_wait", Some(DAY)),
    ("max_deliver", None),
    ("filter_subject", None),
    ("replay_policy", None),
    ("max_ack_pending", Some(20_000)),
    ("max_waiting", Some(512)),
    ("max_batch", None),
    ("max_bytes", None),
    ("max_expires", None),
    ("headers_only", None),
    ("inactive_threshold", Some(30 * DAY)),
    ("mem_storage", None),
];
/// Clients write these although they have no effect here.
const IGNORED: [&str; 2] = ["num_replicas", "metadata"];
const LEAST_ACK_WAIT: u64 = 1_000_000_000;
const DAY: u64 = 24 * 3600 * 1_000_000_000;

/// A request that may be passed on to JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRequest {
    /// The subject.
    pub subject: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Checks a request with this subject and body.
///
/// # Errors
/// It asks for more than a guest may have. The text names the field.
pub fn check(subject: &str, body: &[u8]) -> Result<CheckedRequest, String> {
    let request = subject.strip_prefix(PREFIX);
    let (name, filter) = request
        .and_then(|request| request.split_once('.'))
        .ok_or("the subject names no consumer and filter")?;
    if body.len() > LARGEST {
        return Err(format!("the request is larger than {LARGEST} bytes"));
    }
    let invalid = "the request is no JSON object with a config";
    let parsed: Value = serde_json::from_slice(body).map_err(|_| invalid)?;
    let config = parsed["config"].as_object().ok_or(invalid)?;
    let mut checked = checked_config(config)?;
    for field in ["name", "durable_name"] {
        let is_own = checked.get(field).is_none_or(|chosen| chosen == name);
        if !is_own {
            return Err(format!("{field} is not {name}, which the subject names"));
        }
    }
    let chosen = checked.get("filter_subject");
    if chosen.is_some_and(|chosen| chosen != filter) {
        return Err("filter_subject is not that of the subject".to_owned());
    }
    checked.insert("name".to_owned(), name.into());
    checked.insert("filter_subject".to_owned(), filter.into());
    let mut passed = Map::from_iter([
        ("stream_name".to_owned(), Value::from("EVENTS")),
        ("config".to_owned(), checked.into()),
    ]);
    if let Some(action @ ("create" | "update")) = parsed["action"].as_str() {
        passed.insert("action".to_owned(), action.into());
    }
    Ok(CheckedRequest {
        subject: format!("{API}.CONSUMER.CREATE.EVENTS.{name}.{filter}"),
        body: Value::from(passed).to_string().into_bytes(),
    })
}

/// The fields of the configuration that have a value.
fn checked_config(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut checked = Map::new();
    for (field, value) in config {
        if is_absent(value) || IGNORED.contains(&field.as_str()) {
            continue;
        }
        let Some((_, most)) = FIELDS.iter().find(|(name, _)| name == field) else {
            let field: String = field.chars().take(64).collect();
            return Err(format!("{field} is not permitted"));
        };
        // A negative number stands for no limit.
        if let Some(most) = most
            && value.as_u64().is_none_or(|number| number > *most)
        {
            return Err(format!("{field} must be at most {most}"));
        }
        // The server looks at each unacknowledged message that often.
        if field == "ack_wait" && value.as_u64() < Some(LEAST_ACK_WAIT) {
            return Err(format!("ack_wait must be at least {LEAST_ACK_WAIT}"));
        }
        if value.is_object() || value.is_array() {
            return Err(format!("{field} must be one value"));
        }
        checked.insert(field.clone(), value.clone());
    }
    Ok(checked)
}

/// Whether a value is what the server takes for an absent one.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SUBJECT: &str = "tidings.guests.CONSUMER.CREATE.EVENTS.tap-audit-0.events.prod.>";

    fn checked(config: Value) -> Result<Value, String> {
        let request = json!({"stream_name": "DELIVERIES", "config": config, "action": "create"});
        let checked = check(SUBJECT, request.to_string().as_bytes())?;
        assert_eq!(
            checked.subject,
            "$JS.API.CONSUMER.CREATE.EVENTS.tap-audit-0.events.prod.>"
        );
        Ok(serde_json::from_slice(&checked.body).unwrap())
    }

    #[test]
    fn a_pull_consumer_is_passed_on_with_the_name_and_filter_of_its_subject() {
        let config = json!({
            "durable_name": "tap-audit-0",
            "deliver_policy": "by_start_time",
            "opt_start_time": "2026-01-02T15:04:05Z",
            "ack_policy": "explicit",
            "ack_wait": 30_000_000_000_u64,
            "max_deliver": -1,
            "max_ack_pending": 1000,
            "max_waiting": 128,
            "num_replicas": 1,
            "flow_control": false,
            "idle_heartbeat": 0,
            "metadata": {"a": "b"},
            "deliver_subject": null,
        });
        let passed = checked(config).unwrap();
        assert_eq!(
            passed,
            json!({
                "stream_name": "EVENTS",
                "action": "create",
                "config": {
                    "name": "tap-audit-0",
                    "durable_name": "tap-audit-0",
                    "filter_subject": "events.prod.>",
                    "deliver_policy": "by_start_time",
                    "opt_start_time": "2026-01-02T15:04:05Z",
                    "ack_policy": "explicit",
                    "ack_wait": 30_000_000_000_u64,
                    "max_deliver": -1,
                    "max_ack_pending": 1000,
                    "max_waiting": 128,
                },
            })
        );
    }

    #[test]
    fn a_request_for_more_is_refused_with_the_field() {
        for (field, value) in [
            (
                "deliver_subject",
                json!("$JS.API.CONSUMER.MSG.NEXT.EVENTS.router"),
            ),
            ("deliver_group", json!("a")),
            ("flow_control", json!(true)),
            ("idle_heartbeat", json!(1)),
            ("rate_limit_bps", json!(1)),
            ("filter_subjects", json!(["events.>"])),
            ("filter_subject", json!("events.>")),
            ("name", json!("router")),
            ("durable_name", json!("router")),
            ("max_waiting", json!(100_000_000)),
            ("max_waiting", json!(-1)),
            ("max_ack_pending", json!(-1)),
            ("inactive_threshold", json!(u64::MAX)),
            ("description", json!({"a": 1})),
            ("ack_wait", json!(1)),
            ("ack_wait", json!(999_999_999)),
            ("backoff", json!([1])),
            ("priority_groups", json!(["a"])),
            ("priority_policy", json!("overflow")),
            ("pause_until", json!("2036-01-02T15:04:05Z")),
            ("of_a_later_server", json!(1)),
        ] {
            let refused = checked(json!({ field: value })).unwrap_err();
            assert!(refused.starts_with(field), "{field}: {refused}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let large = vec![b' '; LARGEST + 1];
        for body in [&b""[..], b"[]", b"{}", b"{\"config\": 1}", &large] {
            assert!(check(SUBJECT, body).is_err(), "{body:?}");
        }
        for subject in ["", "tidings.guests.CONSUMER.CREATE.EVENTS.a", "events.a.b"] {
            assert!(check(subject, b"{\"config\": {}}").is_err(), "{subject}");
        }
    }
}
