//! Any pattern compiles or is rejected with a message, and a compiled pattern matches any text
//! without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_rules::pattern::compile;

fuzz_target!(|given: (&str, &str)| {
    let (pattern, text) = given;
    match compile(pattern) {
        Ok(compiled) => {
            let _ = compiled.is_match(text);
        }
        Err(message) => assert!(!message.is_empty()),
    }
});
