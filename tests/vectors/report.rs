//! The result of a replay.

use std::collections::BTreeMap;

use serde_json::Value;

/// The number of lines that are shown for a failed case.
const LINES_SHOWN: usize = 25;

/// Counts cases, and prints those that differ.
#[derive(Default)]
pub struct Report {
    agreeing: usize,
    differing: Vec<String>,
    skipped: BTreeMap<String, usize>,
}

impl Report {
    /// Adds a case with its differences.
    pub fn add(&mut self, case: &str, problems: &[String]) {
        if problems.is_empty() {
            self.agreeing += 1;
            return;
        }
        self.differing.push(case.to_owned());
        println!("DIFFERS {case}");
        problems
            .iter()
            .take(LINES_SHOWN)
            .for_each(|problem| println!("    {problem}"));
    }

    /// Adds a case that is not replayed.
    pub fn skip(&mut self, reason: &str) {
        *self.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    /// Prints the totals.
    ///
    /// # Panics
    /// A case differs, or no case was found.
    pub fn finish(self, what: &str) {
        for (reason, count) in &self.skipped {
            println!("{what}: skipped {count}: {reason}");
        }
        println!(
            "{what}: {} agree, {} differ",
            self.agreeing,
            self.differing.len()
        );
        assert!(
            self.differing.is_empty(),
            "{what}: these differ from the recordings: {:?}",
            self.differing
        );
        assert!(
            self.agreeing + self.skipped.len() > 0,
            "{what}: no case was found"
        );
    }
}

/// A sentence if both differ.
pub fn expect_equal<T: PartialEq + serde::Serialize + ?Sized>(
    what: &str,
    expected: &T,
    got: &T,
) -> Option<String> {
    (expected != got).then(|| {
        let [expected, got] = [expected, got].map(|value| short(&serde_json::json!(value)));
        format!("{what}: expected {expected}, got {got}")
    })
}

/// A value as text of bounded length.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 200 {
        text
    } else {
        format!(
            "{}… ({} bytes)",
            text.chars().take(180).collect::<String>(),
            text.len()
        )
    }
}
