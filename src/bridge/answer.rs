//! What a bridge does after it sent an event. Pure.

use std::time::Duration;

use tidings_core::runtime::metrics::labels::BridgeOutcome;

/// The pause after the first try. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The longest wait that a target can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// An event is given up after this number of answers that reject it.
pub const MAX_REJECTIONS: u32 = 5;

/// What the target answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the event.
    Taken,
    /// It had the event before.
    Duplicate,
    /// It cannot take this event; it may take others.
    Rejects(String),
    /// It can never take this event.
    Impossible(String),
    /// It cannot take events now, or asks to wait this long.
    Unavailable(String, Option<Duration>),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Acknowledge the event.
    Finish(BridgeOutcome),
    /// Send it again after this pause.
    Wait(Duration),
}

/// The tries of one event so far.
#[derive(Debug, Default)]
pub struct Tries {
    made: u32,
    rejections: u32,
}

impl Answer {
    /// The answer of a URL. Only 400, 413 and 422 are about the event itself. Any other error, such
    /// as 401 or 404, would be that of every event: they wait until the cause is gone.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        let why = format!("the URL answers with status {status}");
        match status {
            200..=299 => Self::Taken,
            400 | 413 | 422 => Self::Rejects(why),
            _ => Self::Unavailable(why, retry_after),
        }
    }

    /// Why the event was not taken; empty if it was.
    pub fn why(&self) -> &str {
        match self {
            Self::Taken | Self::Duplicate => "",
            Self::Rejects(why) | Self::Impossible(why) | Self::Unavailable(why, _) => why,
        }
    }
}

impl Tries {
    /// Counts an answer and decides what follows.
    pub fn next(&mut self, answer: &Answer) -> Next {
        self.made += 1;
        let pause = FIRST_PAUSE * 2_u32.pow(self.made.min(10) - 1);
        let pause = pause.min(MAX_PAUSE);
        match answer {
            Answer::Taken => Next::Finish(BridgeOutcome::Forwarded),
            Answer::Duplicate => Next::Finish(BridgeOutcome::Duplicate),
            Answer::Impossible(_) => Next::Finish(BridgeOutcome::Rejected),
            Answer::Rejects(_) => {
                self.rejections += 1;
                match self.rejections {
                    MAX_REJECTIONS.. => Next::Finish(BridgeOutcome::Rejected),
                    _ => Next::Wait(pause),
                }
            }
            Answer::Unavailable(_, wait) => {
                let wait = wait.unwrap_or_default().min(MAX_RETRY_AFTER);
                Next::Wait(pause.max(wait))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(seconds: Option<u64>) -> Answer {
        Answer::Unavailable(String::new(), seconds.map(Duration::from_secs))
    }

    #[test]
    fn only_a_few_statuses_are_about_the_event() {
        for status in [200, 202, 204] {
            assert_eq!(Answer::of_status(status, None), Answer::Taken, "{status}");
        }
        for status in [400, 413, 422] {
            let answer = Answer::of_status(status, None);
            assert!(matches!(answer, Answer::Rejects(_)), "{status}");
        }
        for status in [301, 401, 403, 404, 405, 408, 410, 415, 429, 500, 503] {
            let answer = Answer::of_status(status, None);
            assert!(matches!(answer, Answer::Unavailable(..)), "{status}");
        }
    }

    #[test]
    fn an_event_is_given_up_after_five_rejections_only() {
        let mut tries = Tries::default();
        let rejects = Answer::Rejects(String::new());
        for _ in 1..MAX_REJECTIONS {
            assert!(matches!(tries.next(&rejects), Next::Wait(_)));
            assert!(matches!(tries.next(&unavailable(None)), Next::Wait(_)));
        }
        assert_eq!(tries.next(&rejects), Next::Finish(BridgeOutcome::Rejected));
        let mut tries = Tries::default();
        for _ in 0..100 {
            assert!(matches!(tries.next(&unavailable(None)), Next::Wait(_)));
        }
        assert_eq!(
            tries.next(&Answer::Taken),
            Next::Finish(BridgeOutcome::Forwarded)
        );
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_retry_after_is_bounded() {
        let mut tries = Tries::default();
        let mut next = |answer: &Answer| match tries.next(answer) {
            Next::Wait(pause) => pause,
            Next::Finish(outcome) => panic!("{outcome}"),
        };
        assert_eq!(next(&unavailable(None)), FIRST_PAUSE);
        assert_eq!(next(&unavailable(None)), FIRST_PAUSE * 2);
        assert_eq!(next(&unavailable(Some(30))), Duration::from_secs(30));
        assert_eq!(next(&unavailable(Some(u64::MAX))), MAX_RETRY_AFTER);
        for _ in 0..20 {
            next(&unavailable(None));
        }
        assert_eq!(next(&unavailable(None)), MAX_PAUSE);
    }
}
