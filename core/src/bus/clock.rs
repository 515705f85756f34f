//! The server's clock: schedules are read by it, not by ours.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// How far the server's clock is ahead of ours, as last sampled.
#[derive(Debug, Default)]
pub struct ServerClock {
    ahead_ms: AtomicI64,
}

impl ServerClock {
    /// Notes the server's time, which was asked for at `asked` and came at `came`, both by our
    /// clock.
    pub fn sample(&self, server: Timestamp, asked: Timestamp, came: Timestamp) {
        let middle = (asked.as_millisecond() + came.as_millisecond()) / 2;
        self.ahead_ms
            .store(server.as_millisecond() - middle, Ordering::Relaxed);
    }

    /// The server's time now.
    pub fn now(&self) -> Timestamp {
        let ahead = jiff::SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        Timestamp::now()
            .checked_add(ahead)
            .unwrap_or_else(|_| Timestamp::now())
    }

    /// The server's time after a wait.
    pub fn after(&self, wait: Duration) -> Timestamp {
        self.now().checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_from_the_servers_time() {
        let clock = ServerClock::default();
        let ours = Timestamp::now();
        let server = ours.checked_add(Duration::from_secs(3600)).unwrap();
        clock.sample(server, ours, ours);
        let due = clock.after(Duration::from_secs(60));
        let ahead = due.duration_since(ours).as_secs();
        assert!((3659..=3665).contains(&ahead), "{ahead}");
    }
}
