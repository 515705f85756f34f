//! The pace of log lines about refused requests, which anyone can cause.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The shortest time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides which refusals are logged.
#[derive(Default)]
pub(super) struct RefusalLog(Mutex<State>);

#[derive(Default)]
struct State {
    written: Option<Instant>,
    since: u64,
}

impl RefusalLog {
    /// Notes a refusal. If a line is due: how many were refused since the last line, with this one.
    pub(super) fn is_due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.since += 1;
        let is_early = |written: Instant| now.saturating_duration_since(written) < PAUSE;
        if state.written.is_some_and(is_early) {
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_in_ten_seconds() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let at = |second| log.is_due(start + Duration::from_secs(second));
        let lines: Vec<_> = (0..25).filter_map(at).collect();
        assert_eq!(lines, [1, 10, 10]);
    }
}
