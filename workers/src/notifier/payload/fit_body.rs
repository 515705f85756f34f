//! Fits whole bodies into the size limit of a service.

use std::collections::BTreeMap;

use serde_json::Value;
use tidings_core::Event;
use tidings_core::model::excerpt::excerpt;
use tidings_core::model::flux;

use super::fit::{GO_JSON_BYTES, JSON_BYTES, Unit, fit};

/// Keys and values.
pub type Fields = BTreeMap<String, String>;

/// A JSON body of at most `most` bytes. `build` makes it of a text and fields, of which it may use
/// the fields several times. The text is cut first, then the last fields.
pub fn fit_json(
    most: usize,
    text: &str,
    fields: &Fields,
    build: impl Fn(&str, &Fields) -> Value,
) -> Value {
    fit_body(JSON_BYTES, most, text, fields, build, |body| {
        body.to_string().len()
    })
}

/// An event in Flux's JSON, with at most `most` bytes.
pub fn fit_event(most: usize, event: &Event, metadata: &Fields) -> Vec<u8> {
    let whole = flux::to_json(event, metadata);
    if whole.len() <= most {
        return whole;
    }
    drop(whole);
    let build =
        |message: &str, metadata: &Fields| flux::to_json(&with_message(event, message), metadata);
    fit_body(
        GO_JSON_BYTES,
        most,
        &event.message,
        metadata,
        build,
        Vec::len,
    )
}

/// The same as [`fit_event`], as a value that has at most `most` bytes in JSON.
pub fn fit_event_value(most: usize, event: &Event, metadata: &Fields) -> Value {
    let whole = flux::to_value(event, metadata);
    if whole.to_string().len() <= most {
        return whole;
    }
    fit_json(most, &event.message, metadata, |message, metadata| {
        flux::to_value(&with_message(event, message), metadata)
    })
}

/// The event with another message. Its other texts are bounded.
fn with_message(event: &Event, message: &str) -> Event {
    Event {
        message: message.to_owned(),
        ..excerpt(event)
    }
}

/// The body, cut in a unit that measures texts as `size` measures bodies.
fn fit_body<T>(
    unit: Unit,
    most: usize,
    text: &str,
    fields: &Fields,
    build: impl Fn(&str, &Fields) -> T,
    size: impl Fn(&T) -> usize,
) -> T {
    let whole = build(text, fields);
    if size(&whole) <= most {
        return whole;
    }
    drop(whole);
    let room = most.saturating_sub(size(&build("", &Fields::new())));
    let room_for_fields = room.saturating_sub((unit.size)(text)).max(room / 2);
    // The cluster's name is not cut off by other metadata.
    let is_cluster = |key: &str| matches!(key, "cluster" | "tidings_cluster");
    let (first, last): (Vec<_>, Vec<_>) = fields.iter().partition(|(key, _)| is_cluster(key));
    let mut share = room_for_fields;
    loop {
        // A field is written as `"KEY":"VALUE",`, or more.
        let ordered = first.iter().chain(&last).copied();
        let fitted = fit(unit, share, "", ordered, r#""":"","#.len());
        let fitted: Fields = fitted.fields.into_iter().collect();
        let taken = size(&build("", &fitted));
        if fitted.is_empty() || taken + room <= most + room_for_fields {
            let text = (unit.cut)(text, most.saturating_sub(taken));
            return build(&text, &fitted);
        }
        share /= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn body(text: &str, fields: &Fields) -> Value {
        json!({"text": text, "fields": fields, "again": fields})
    }

    #[test]
    fn a_body_that_fits_is_whole() {
        let fields = fields(&[("k", "v")]);
        let whole = body("text", &fields);
        let most = whole.to_string().len();
        assert_eq!(fit_json(most, "text", &fields, body), whole);
    }

    #[test]
    fn a_long_text_is_cut_and_short_fields_stay() {
        let fields = fields(&[("cluster", "prod"), ("revision", "main@sha1:8f5d")]);
        let fitted = fit_json(300, &"x".repeat(1_000), &fields, body);
        assert_eq!(fitted["fields"], json!(fields));
        assert_eq!(fitted.to_string().len(), 300);
    }

    #[test]
    fn long_fields_leave_a_short_text_whole() {
        let fields = fields(&[("k", &"v".repeat(1_000))]);
        let fitted = fit_json(300, "short", &fields, body);
        assert_eq!(fitted["text"], "short");
        assert!(fitted["fields"]["k"].as_str().unwrap().starts_with("vvv"));
    }

    #[test]
    fn an_event_keeps_its_object_and_reason() {
        let event = Event {
            reason: "BuildFailed".into(),
            message: "<".repeat(10_000),
            ..Event::default()
        };
        let metadata = fields(&[("k", &"&".repeat(10_000)), ("l", "last")]);
        for most in [5_000, 20_000, 59_000] {
            let json = fit_event(most, &event, &metadata);
            assert!(
                json.len() <= most && json.len() > most - 10,
                "{}",
                json.len()
            );
            let json: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json["reason"], "BuildFailed");
            assert!(json["message"].as_str().unwrap().ends_with('…'));
            let value = fit_event_value(most, &event, &metadata);
            assert!(value.to_string().len() <= most);
        }
    }

    proptest! {
        #[test]
        fn a_body_never_exceeds_the_limit(
            text in ".{0,300}",
            fields in proptest::collection::btree_map(".{0,20}", ".{0,100}", 0..10),
            most in 60usize..2_000,
        ) {
            let fitted = fit_json(most, &text, &fields, body);
            prop_assert!(fitted.to_string().len() <= most, "{fitted}");
        }
    }
}
