//! The severities that an Alert selects.

/// A set of severities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Severities(pub(crate) u8);

impl Severities {
    /// All severities, including unknown ones.
    pub const ALL: Self = Self(0b1_1111);
    /// The severities that a list may contain, in the order of their bits.
    pub(crate) const WORDS: [&'static str; 4] = ["trace", "info", "warn", "error"];

    /// Parses an element of a list.
    pub(crate) fn word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .position(|known| *known == word)
            .map(|bit| Self(1 << bit))
    }

    /// Parses a minimum severity. `info` is the lowest and selects all events.
    pub(crate) fn threshold(word: &str) -> Option<Self> {
        match word {
            "info" => Some(Self::ALL),
            "warn" => Some(Self(0b1100)),
            "error" => Some(Self(0b1000)),
            _ => None,
        }
    }

    /// Whether an event of this severity is selected. Case matters: `ERROR` is an unknown severity.
    pub fn contains(self, severity: &str) -> bool {
        let word = tidings_core::model::subject::severity_token(severity);
        let bit = Self::WORDS
            .iter()
            .position(|known| *known == word)
            .unwrap_or(Self::WORDS.len());
        self.0 & 1 << bit != 0
    }
}
