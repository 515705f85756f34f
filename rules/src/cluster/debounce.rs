//! When changes are put in force: together with those that come right after them, and soon.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that follow each other within this time are one.
const QUIET: Duration = Duration::from_millis(50);
/// No change waits longer, however many follow it.
const LONGEST: Duration = Duration::from_millis(500);

/// The changes that wait.
#[derive(Debug, Default)]
pub(super) struct Pace {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    /// Something has changed, or must be waited for.
    pub(super) fn touch(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When to put it in force; nothing where nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        Some((self.last? + QUIET).min(self.first? + LONGEST))
    }

    /// Whether no more can be waited for.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.first.is_some_and(|first| now >= first + LONGEST)
    }

    /// It is in force, or can't be yet.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_wait_for_those_that_follow_but_not_for_ever() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.due(), None);
        pace.touch(start);
        assert_eq!(pace.due(), Some(start + QUIET));
        for step in 1..100 {
            pace.touch(start + step * Duration::from_millis(10));
        }
        assert_eq!(pace.due(), Some(start + LONGEST));
        assert!(pace.is_over(start + LONGEST) && !pace.is_over(start));
        pace.rest();
        assert_eq!(pace.due(), None);
    }
}
