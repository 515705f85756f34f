//! Any pattern is refused with a sentence or can be looked for in any text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_rules::pattern;

fuzz_target!(|given: (&str, &str)| {
    let (written, text) = given;
    match pattern::compile(written) {
        Ok(compiled) => {
            let _ = compiled.is_match(text);
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
});
