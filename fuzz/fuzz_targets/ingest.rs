//! Any body is taken or refused; what was taken is taken again in the form in which it goes out.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use tidings_core::model::flux;

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = tidings_ingest::parse_event(body, "fuzz", Timestamp::UNIX_EPOCH, None) {
        let metadata = event.metadata.clone().into_iter().collect();
        let again = tidings_ingest::parse_event(&flux::to_json(&event, &metadata), "fuzz", Timestamp::UNIX_EPOCH, None);
        let again = again.expect("what we write can be read");
        assert_eq!((again.message, again.reason), (event.message, event.reason));
    }
});
