//! The server's clock. JetStream uses it for schedules, and it may differ from our clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::time;

/// How far the server's clock is ahead of ours, as last sampled.
#[derive(Debug, Default)]
pub struct ServerClock {
    ahead_ms: AtomicI64,
}

impl ServerClock {
    /// Stores a sample: the server's time, and when it was requested and received by our clock.
    pub fn sample(&self, server: Timestamp, requested: Timestamp, received: Timestamp) {
        let middle = (requested.as_millisecond() + received.as_millisecond()) / 2;
        self.ahead_ms
            .store(server.as_millisecond() - middle, Ordering::Relaxed);
    }

    /// The server's current time.
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let now = Timestamp::now();
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
        let ours = Timestamp::now();
        let server = time::after(ours, Duration::from_secs(3600));
        clock.sample(server, ours, ours);
        let due = clock.after(Duration::from_secs(60));
        let ahead = due.duration_since(ours).as_secs();
        assert!((3659..=3665).contains(&ahead), "{ahead}");
    }
}
