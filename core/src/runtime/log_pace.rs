//! The pace of log lines about a failure that lasts.

use std::time::{Duration, Instant};

/// The pause after the first line. It doubles with each further line.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// Decides which failures of a loop are logged: the first, each with another text, and repeated
/// ones at growing intervals.
#[derive(Debug, Default)]
pub struct LogPace {
    /// The text of the last line, when it was written, and the pause after it.
    last: Option<(String, Instant, Duration)>,
}

impl LogPace {
    /// Whether to log this failure now.
    pub fn is_due(&mut self, failure: &str, now: Instant) -> bool {
        let pause = match &self.last {
            Some((text, written, pause)) if text == failure => {
                if now.saturating_duration_since(*written) < *pause {
                    return false;
                }
                (*pause * 2).min(MAX_PAUSE)
            }
            _ => FIRST_PAUSE,
        };
        self.last = Some((failure.to_owned(), now, pause));
        true
    }

    /// Notes a success: the next failure is logged. Returns whether a failure was logged before.
    pub fn reset(&mut self) -> bool {
        self.last.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_failure_is_logged_at_growing_intervals() {
        let (mut pace, start) = (LogPace::default(), Instant::now());
        let logged: Vec<u64> = (0..600)
            .filter(|second| pace.is_due("down", start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(logged, [0, 2, 6, 14, 30, 62, 126, 246, 366, 486]);
        let end = start + Duration::from_secs(600);
        assert!(pace.is_due("another failure", end));
        assert!(!pace.is_due("another failure", end));
        assert!(pace.reset() && !pace.reset());
        assert!(pace.is_due("another failure", end), "after a success");
    }
}
