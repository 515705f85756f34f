//! Regular expressions in the dialect of Flux: Go's RE2 syntax, run by Rust's engine.
//!
//! Some patterns have different meanings in the two dialects, and some are valid only in Go. So
//! each pattern is parsed and translated:
//!
//! | in Go | translation |
//! |---|---|
//! | `\d`, `\w`, `\s` and `\b` are ASCII only | explicit classes, `(?-u:\b)` |
//! | `[a&&b]`, `[[a]`, `[a--b]` are literals | escaped: no set operations or nested classes |
//! | `{`, `a{,3}` and `a{x}` are literals | escaped |
//! | `\Q…\E`, `\012`, `\p{^L}`, `\<` | characters and classes |
//! | `a**`, `(?x)`, `a{1001}`, `(a{100}){11}` are errors | errors |
//!
//! ```text
//!  text ─► translate ─► store (equal patterns are one) ─► automaton ─► search
//!              └─ repetition, class: what Go or the limits refuse
//! ```
//!
//! Tenants write patterns, and anybody may send the text. So memory and work are limited: see
//! `pattern_memory` and [`Steps`].

mod automaton;
mod repetition;
mod search;
mod steps;
mod store;
mod translate;

use std::sync::Arc;

pub(crate) use automaton::{Automaton, MAX_AUTOMATON_BYTES};
pub use steps::{ALERT_STEPS, NAMESPACE_STEPS, Steps};
pub use store::Pattern;

/// How long the patterns of an Alert may be in total.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// How many characters of classes the compiler may enumerate for an Alert.
const MAX_CLASS_CHARACTERS: u64 = 4_000_000;

/// What a pattern says about a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A part of the text matches.
    Match,
    /// No part of the text matches.
    NoMatch,
    /// The steps do not suffice to decide.
    Undecided,
}

/// A list of patterns. Invalid patterns are omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Vec<(usize, Arc<Pattern>)>);

/// The search of a text with a list of patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Whether one of the patterns matches. `Undecided` if none matches and some are undecided.
    pub decision: Decision,
    /// The positions of the undecided patterns in the list.
    pub undecided: Vec<usize>,
}

/// What the patterns of an Alert may still use while it is checked.
#[derive(Debug)]
pub(crate) struct Allowance {
    text_bytes: usize,
    class_characters: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            text_bytes: MAX_TEXT_BYTES,
            class_characters: MAX_CLASS_CHARACTERS,
        }
    }
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The pattern is invalid and is omitted.
    Invalid(String),
    /// The Alert has too many or too large patterns.
    OverLimit(String),
}

impl Patterns {
    /// Checks a list. Returns the position and the error of each pattern that cannot be used. After
    /// the first one above a limit, no others are checked.
    pub(crate) fn check(
        patterns: &[String],
        allowance: &mut Allowance,
    ) -> (Self, Vec<(usize, Refusal)>) {
        let mut valid = Vec::with_capacity(patterns.len());
        let mut refused = Vec::new();
        for (position, pattern) in patterns.iter().enumerate() {
            match allowance.check(pattern) {
                Ok(pattern) => valid.push((position, pattern)),
                Err(refusal) => {
                    let is_over_limit = matches!(refusal, Refusal::OverLimit(_));
                    refused.push((position, refusal));
                    if is_over_limit {
                        break;
                    }
                }
            }
        }
        (Self(valid), refused)
    }

    /// Searches the text until a pattern matches.
    pub fn search(&self, text: &str, steps: &mut Steps) -> Search {
        let mut undecided = Vec::new();
        for (position, pattern) in &self.0 {
            match pattern.search(text, steps) {
                Decision::Match => {
                    return Search {
                        decision: Decision::Match,
                        undecided,
                    };
                }
                Decision::NoMatch => {}
                Decision::Undecided => undecided.push(*position),
            }
        }
        let decision = match undecided.is_empty() {
            true => Decision::NoMatch,
            false => Decision::Undecided,
        };
        Search {
            decision,
            undecided,
        }
    }

    /// How many steps a search takes at most for each byte of the text, if no limit ends it.
    pub fn steps_per_byte(&self) -> u64 {
        let patterns = self.0.iter().map(|(_, pattern)| pattern);
        patterns.map(|pattern| pattern.steps_per_byte()).sum()
    }

    /// The patterns with their positions in the list.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Pattern>)> {
        self.0
            .iter()
            .map(|(position, pattern)| (*position, pattern))
    }
}

impl Allowance {
    fn check(&mut self, pattern: &str) -> Result<Arc<Pattern>, Refusal> {
        let Some(text_bytes) = self.text_bytes.checked_sub(pattern.len()) else {
            return Err(Refusal::OverLimit(format!(
                "the patterns of the Alert have more than {MAX_TEXT_BYTES} bytes up to this one; \
                 remove some, or distribute them over several Alerts"
            )));
        };
        self.text_bytes = text_bytes;
        let pattern = store::get(pattern).map_err(Refusal::Invalid)?;
        let characters = pattern.class_characters();
        let Some(class_characters) = self.class_characters.checked_sub(characters) else {
            return Err(Refusal::OverLimit(format!(
                "the classes of the Alert's patterns have more than {MAX_CLASS_CHARACTERS} \
                 characters in total up to this pattern; use fewer or smaller classes with (?i)"
            )));
        };
        self.class_characters = class_characters;
        pattern.check_syntax().map_err(Refusal::Invalid)?;
        Ok(pattern)
    }
}

/// Compiles a pattern of the Go dialect.
///
/// # Errors
/// A message that completes the sentence "The pattern …".
pub fn compile(pattern: &str) -> Result<Arc<Pattern>, String> {
    let pattern = match Allowance::default().check(pattern) {
        Ok(pattern) => pattern,
        Err(Refusal::Invalid(message) | Refusal::OverLimit(message)) => return Err(message),
    };
    pattern.automaton()?;
    Ok(pattern)
}

/// Whether a pattern matches all of these texts. False for a pattern that takes longer to compile
/// than a pattern that is meant to match everything.
pub(crate) fn is_small_and_matches_all(pattern: &str, texts: &[&str]) -> bool {
    const MAX_BYTES: usize = 256;
    const MAX_CLASS_CHARACTERS: u64 = 2_000;
    const MAX_AUTOMATON_BYTES: usize = 64 << 10;
    let is_small = |pattern: &Arc<Pattern>| pattern.class_characters() <= MAX_CLASS_CHARACTERS;
    Some(pattern)
        .filter(|pattern| pattern.len() <= MAX_BYTES)
        .and_then(|pattern| store::get(pattern).ok())
        .filter(is_small)
        .and_then(|pattern| pattern.compile(MAX_AUTOMATON_BYTES).ok())
        .is_some_and(|automaton| {
            texts
                .iter()
                .all(|text| automaton.search(text, &mut Steps::new(ALERT_STEPS)) == Decision::Match)
        })
}

#[cfg(test)]
mod tests;
