//! The server's clock. JetStream uses it for schedules, and it may differ from our clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::model::time;

/// How far the server's clock is ahead of ours, as last sampled.
///
/// Ours is the time since the start of the process, so that it does not jump when the machine's
/// clock is set. Leases would end at once.
#[derive(Debug)]
pub struct ServerClock {
    started: (Timestamp, Instant),
    ahead_ms: AtomicI64,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self {
            started: (Timestamp::now(), Instant::now()),
            ahead_ms: AtomicI64::default(),
        }
    }
}

impl ServerClock {
    /// The time of our clock, for [`ServerClock::sample`].
    pub fn own(&self) -> Timestamp {
        let (time, instant) = self.started;
        time::after(time, instant.elapsed())
    }

    /// Stores a sample: the server's time, and when it was requested and received by our clock.
    ///
    /// The server read its clock at some moment in between. What is known already stays if it
    /// agrees with that, so that a slow answer does not spoil it: leases depend on this clock.
    pub fn sample(&self, server: Timestamp, requested: Timestamp, received: Timestamp) {
        let ahead_of = |ours: Timestamp| server.as_millisecond() - ours.as_millisecond();
        let least = ahead_of(received);
        let most = ahead_of(requested).max(least);
        let known = self.ahead_ms.load(Ordering::Relaxed);
        self.ahead_ms
            .store(known.clamp(least, most), Ordering::Relaxed);
    }

    /// The server's current time.
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let now = self.own();
        now.checked_add(ahead).unwrap_or(now)
    }

    /// The server's time after a wait.
    pub fn after(&self, wait: Duration) -> Timestamp {
        time::after(self.now(), wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_starts_at_the_servers_time() {
        let clock = ServerClock::default();
        let ours = clock.own();
        let server = time::after(ours, Duration::from_secs(3600));
        clock.sample(server, ours, ours);
        let due = clock.after(Duration::from_secs(60));
        let ahead = due.duration_since(ours).as_secs();
        assert!((3659..=3665).contains(&ahead), "{ahead}");
    }

    #[test]
    fn a_slow_answer_changes_only_what_it_disproves() {
        let clock = ServerClock::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (server, requested, received, ahead_ms) in [
            (at(1100), at(1000), at(1000), 100_000),
            // Between 98 s and 101 s.
            (at(1101), at(1000), at(1003), 100_000),
            (at(1110), at(1000), at(1003), 107_000),
            (at(1103), at(1000), at(1003), 103_000),
        ] {
            clock.sample(server, requested, received);
            assert_eq!(clock.ahead_ms.load(Ordering::Relaxed), ahead_ms, "{server}");
        }
    }
}
