//! Limits of the work of searches.

/// The steps for all patterns of an Alert and one text: less than a second.
pub const ALERT_STEPS: u64 = 64_000_000;
/// The steps for all Alerts of a namespace and one text.
pub const NAMESPACE_STEPS: u64 = 128_000_000;

/// The steps that a search may still take.
///
/// A step is a visit of one state of an automaton, or four bytes of text at which nothing is
/// computed. Each takes about 8 ns in a release build. Steps are counted and time is not measured,
/// so that every replica decides the same about the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u64);

impl Steps {
    /// Allows this number of steps.
    pub fn new(steps: u64) -> Self {
        Self(steps)
    }

    /// The steps that are left.
    pub fn left(self) -> u64 {
        self.0
    }

    /// Takes steps. Takes nothing and returns false if fewer are left.
    #[must_use]
    pub(super) fn take(&mut self, steps: u64) -> bool {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}
