//! The decoder of the event endpoint.

use jiff::Timestamp;
use tidings_core::model::flux;
use tidings_ingest::parse_event;

use crate::runner::Target;

#[test]
fn any_body_is_accepted_or_refused_and_an_accepted_event_survives_its_own_json_form() {
    Target {
        name: "ingest",
        dictionary: &[
            "\"involvedObject\":",
            "\"InvolvedObject\":",
            "\"metadata\":{",
            "\"timestamp\":\"0001-01-01T00:00:00Z\"",
            "\"severity\":\"error\"",
            "\\ud800",
            "\\udc00",
            "\\u0000",
            "1e999",
            "-0",
            "null",
            "[[[[",
            "{\"\":",
            "\u{feff}",
            "}",
            ",",
        ],
        check: |body| {
            let parse = |body: &[u8]| parse_event(body, "fuzz", Timestamp::UNIX_EPOCH, None);
            let Ok(event) = parse(body) else { return };
            let metadata = event.metadata.clone().into_iter().collect();
            let again = parse(&flux::to_json(&event, &metadata))
                .expect("the JSON form of an accepted event is valid");
            assert_eq!((again.message, again.reason), (event.message, event.reason));
        },
    }
    .run();
}
