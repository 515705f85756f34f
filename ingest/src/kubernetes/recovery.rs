//! Finds the events that a killed leader stored after it last saved its cursor.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidings_core::Event;
use tidings_core::bus::Bus;
use tidings_core::runtime::codes::log as codes;
use tokio_util::sync::CancellationToken;

/// A killed leader saved its last cursor at most this long before it was last seen. It stored its
/// last event at most this long after it was last seen. Both include clock differences.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// The pause after a failed read.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The dedupe keys of the previous leader's last events, and until when it may have read Events.
#[derive(Debug, Default)]
pub struct RecoveredKeys {
    keys: HashSet<String>,
    until: Timestamp,
}

impl RecoveredKeys {
    /// Reads the keys from the stream EVENTS. Returns no keys if the bus still detects duplicates
    /// of these events, which it does for `dedupe_interval`.
    pub async fn read(
        bus: &Bus,
        cluster: &str,
        leader_last_seen: Timestamp,
        dedupe_interval: Duration,
        stop: &CancellationToken,
    ) -> Self {
        let silent_for = Timestamp::now().duration_since(leader_last_seen);
        if silent_for < SignedDuration::try_from(dedupe_interval / 2).unwrap_or(SignedDuration::MAX)
        {
            return Self::default();
        }
        let [from, until] = [-MARGIN, MARGIN].map(|margin| {
            leader_last_seen
                .checked_add(margin)
                .unwrap_or(leader_last_seen)
        });
        loop {
            match bus.dedupe_keys(cluster, from, until).await {
                Ok(keys) => return Self { keys, until },
                Err(error) => tracing::warn!(
                    code = codes::EVENT_RECOVERY_FAILED,
                    %error,
                    "cannot read the events that the previous leader stored, retrying"
                ),
            }
            tokio::select! {
                () = stop.cancelled() => return Self::default(),
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
    }

    /// Whether the previous leader stored this event. `stored_at` is when the API server stored the
    /// Event. Each key matches once.
    pub fn take(&mut self, event: &Event, stored_at: Option<Timestamp>) -> bool {
        stored_at.is_some_and(|stored_at| stored_at <= self.until)
            && self.keys.remove(&event.dedupe_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_matches_once_and_only_events_of_its_time() {
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let mut recovered = RecoveredKeys {
            keys: ["a", "b"].map(str::to_owned).into(),
            until: time(100).unwrap(),
        };
        let event = |key: &str| Event {
            dedupe_key: key.to_owned(),
            ..Event::default()
        };
        for (key, stored_at, expected) in [
            ("a", time(101), false),
            ("a", None, false),
            ("a", time(100), true),
            ("a", time(100), false),
            ("c", time(1), false),
            ("b", time(1), true),
        ] {
            assert_eq!(
                recovered.take(&event(key), stored_at),
                expected,
                "{key} {stored_at:?}"
            );
        }
    }
}
