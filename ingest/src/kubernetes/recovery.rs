//! What a replica that was killed has stored behind the cursor that it left.

use std::collections::HashSet;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use jiff::{SignedDuration, Timestamp};
use tidings_core::Event;
use tidings_core::bus::Bus;
use tokio_util::sync::CancellationToken;

/// A holder that is killed has stored everything this long after its last sign at most, and its
/// cursor was written this long before at the earliest; clocks that differ included.
const WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// Before the bus is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Dedupe keys, and the time up to which the holder can have read Events.
#[derive(Debug, Default)]
pub struct Left {
    keys: HashSet<String>,
    until: Timestamp,
}

impl Left {
    /// What a holder that was last seen then has stored since its last cursor. The bus itself knows
    /// that for the dedupe interval; after that it is read back.
    pub async fn read(
        bus: &Bus,
        cluster: &str,
        seen: Timestamp,
        dedupe_interval: Duration,
        over: &CancellationToken,
    ) -> Self {
        let silent_for = Timestamp::now().duration_since(seen);
        if silent_for < SignedDuration::try_from(dedupe_interval / 2).unwrap_or(SignedDuration::MAX)
        {
            return Self::default();
        }
        let [from, until] =
            [-WITHIN, WITHIN].map(|margin| seen.checked_add(margin).unwrap_or(seen));
        loop {
            match bus.dedupe_keys(cluster, from, until).await {
                Ok(keys) => return Self { keys, until },
                Err(error) => {
                    tracing::warn!(code = codes::EVENT_RECOVERY_FAILED, %error, "cannot read what the previous leader stored, retrying")
                }
            }
            tokio::select! {
                () = over.cancelled() => return Self::default(),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Whether the holder has stored an event that the API server had stored then; each of its keys
    /// counts once.
    pub fn has(&mut self, event: &Event, stored_at: Option<Timestamp>) -> bool {
        stored_at.is_some_and(|stored_at| stored_at <= self.until)
            && self.keys.remove(&event.dedupe_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_counts_once_and_for_events_of_that_time_only() {
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let mut left = Left {
            keys: ["a", "b"].map(str::to_owned).into(),
            until: time(100).unwrap(),
        };
        let event = |key: &str| Event {
            dedupe_key: key.to_owned(),
            ..Event::default()
        };
        for (key, stored_at, has) in [
            ("a", time(101), false),
            ("a", None, false),
            ("a", time(100), true),
            ("a", time(100), false),
            ("c", time(1), false),
            ("b", time(1), true),
        ] {
            assert_eq!(left.has(&event(key), stored_at), has, "{key} {stored_at:?}");
        }
    }
}
