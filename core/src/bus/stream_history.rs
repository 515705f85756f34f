//! What happened to the streams: when they were created, restored from a backup, or read again from
//! a chosen position. Sequences of EVENTS may begin again then, so each such moment begins an
//! epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::{Bus, BusError, streams};
use crate::model::time::{proto_ms, to_proto};
use crate::wire::RestoredBackup;

/// What was read counts for this long.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// What happened to the streams.
#[derive(Clone, Debug, Default)]
pub struct StreamHistory {
    /// What was restored last; the default if nothing ever was.
    pub restored: RestoredBackup,
    /// When EVENTS was created, in milliseconds since 1970.
    events_created_ms: i64,
}

impl StreamHistory {
    /// The epoch of an event that was received at this time: when it began, in milliseconds since
    /// 1970. 0 for an event that is older than everything known. A later event never has an earlier
    /// epoch.
    pub fn epoch_ms(&self, received_ms: i64) -> i64 {
        let begins = self.restored.epochs_ms.iter();
        let begins = begins.chain([&self.events_created_ms]).copied();
        let begun = begins.filter(|begin| *begin <= received_ms);
        begun.max().unwrap_or_default().max(0)
    }
}

/// The history as it is now, read at most once a second.
pub struct LiveHistory {
    bus: Bus,
    last: Mutex<(Instant, Arc<StreamHistory>)>,
}

impl LiveHistory {
    /// Reads the history.
    ///
    /// # Errors
    /// The bus is unavailable, or EVENTS does not exist.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        let history = Arc::new(bus.stream_history().await?);
        Ok(Self {
            bus: bus.clone(),
            last: Mutex::new((Instant::now(), history)),
        })
    }

    /// The history, at most a second old. If the bus does not answer: what was read last.
    pub async fn current(&self) -> Arc<StreamHistory> {
        let known = {
            let mut last = self.last.lock();
            if last.0.elapsed() < FRESH_FOR {
                return last.1.clone();
            }
            // One caller reads, and the next one in a second.
            last.0 = Instant::now();
            last.1.clone()
        };
        let Ok(history) = self.bus.stream_history().await else {
            return known;
        };
        let history = Arc::new(history);
        self.last.lock().1 = history.clone();
        history
    }
}

impl Bus {
    /// Reads what happened to the streams.
    async fn stream_history(&self) -> Result<StreamHistory, BusError> {
        let info = self.stream_info(streams::EVENTS).await;
        let info = info.map_err(BusError::Unavailable)?;
        Ok(StreamHistory {
            restored: self.restored_backup().await?,
            events_created_ms: proto_ms(Some(to_proto(info.created))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_belongs_to_the_last_epoch_that_began_before_its_receipt() {
        let history = StreamHistory {
            restored: RestoredBackup {
                epochs_ms: vec![300, 200],
                ..RestoredBackup::default()
            },
            events_created_ms: 100,
        };
        for (received, epoch) in [(99, 0), (100, 100), (199, 100), (200, 200), (900, 300)] {
            assert_eq!(history.epoch_ms(received), epoch, "{received}");
        }
        assert_eq!(StreamHistory::default().epoch_ms(-1), 0);
    }
}
