//! Patterns of Alerts. The first line is the pattern, the rest is the text.

use tidings_rules::pattern::{ALERT_STEPS, Steps, compile};

use crate::runner::{Target, split};

#[test]
fn any_pattern_compiles_or_is_refused_with_a_message_and_matches_the_same_way_again() {
    Target {
        name: "patterns",
        dictionary: &[
            "(?:",
            "(?i)",
            "(?s)",
            "(?P<n>",
            ")",
            "[^",
            "[[:alpha:]]",
            "]",
            "{1000}",
            "{2,}",
            "{0}",
            "*",
            "+?",
            "|",
            "\\b",
            "\\B",
            "\\pL",
            "\\P{Greek}",
            "\\Q",
            "\\E",
            "\\x{10FFFF}",
            "\\C",
            "^",
            "$",
            "\\z",
            ".",
            "&&",
            "--",
            "é",
            "\n",
        ],
        check: |input| {
            let (pattern, text) = split(input);
            match compile(&pattern) {
                Ok(compiled) => {
                    let search = || compiled.search(&text, &mut Steps::new(ALERT_STEPS));
                    assert_eq!(search(), search());
                }
                Err(message) => assert!(!message.is_empty()),
            }
        },
    }
    .run();
}
