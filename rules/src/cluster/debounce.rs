//! Debounces changes, so that changes in quick succession create one snapshot.

use std::time::Duration;

use tokio::time::Instant;

/// The delay after the last change.
const DELAY: Duration = Duration::from_millis(50);
/// The maximum delay after the first change.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// The pending changes.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Debounce {
    /// Records a change, or extends the delay.
    pub(super) fn record_change(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When to apply the pending changes; `None` if there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        Some((self.last? + DELAY).min(self.first? + MAX_DELAY))
    }

    /// Whether the maximum delay has passed.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.first.is_some_and(|first| now >= first + MAX_DELAY)
    }

    /// Clears the pending changes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_wait_for_later_ones_up_to_the_maximum_delay() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        assert_eq!(debounce.due(), None);
        debounce.record_change(start);
        assert_eq!(debounce.due(), Some(start + DELAY));
        for step in 1..100 {
            debounce.record_change(start + step * Duration::from_millis(10));
        }
        assert_eq!(debounce.due(), Some(start + MAX_DELAY));
        assert!(debounce.is_overdue(start + MAX_DELAY) && !debounce.is_overdue(start));
        debounce.clear();
        assert_eq!(debounce.due(), None);
    }
}
