//! Ingest accepts or rejects any body without a panic, and accepts its own JSON form of an event.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use tidings_core::model::flux;

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = tidings_ingest::parse_event(body, "fuzz", Timestamp::UNIX_EPOCH, None) {
        let metadata = event.metadata.clone().into_iter().collect();
        let again = tidings_ingest::parse_event(
            &flux::to_json(&event, &metadata),
            "fuzz",
            Timestamp::UNIX_EPOCH,
            None,
        );
        let again = again.expect("the JSON form of an accepted event is valid");
        assert_eq!((again.message, again.reason), (event.message, event.reason));
    }
});
