//! Restarts a nats-server that keeps a write error after its disk has room again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidings_core::bus::Bus;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::log_pace::LogPace;
use tokio_util::sync::CancellationToken;

use super::folder;

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The pause after a restart. It doubles with each further restart that did not help.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Restarts a supervised nats-server.
pub struct Restarter {
    pub(super) data: PathBuf,
    /// The supervisor restarts the server when this is set.
    pub(super) requested: Arc<AtomicBool>,
}

/// When the next restart is allowed.
#[derive(Debug)]
struct Pace {
    restarted: Option<Instant>,
    pause: Duration,
}

impl Restarter {
    /// Restarts the server while it keeps write errors and its disk can be written, until `stop`.
    pub async fn run(self, bus: Bus, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        let (mut pace, mut log) = (Pace::default(), LogPace::default());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let errors = bus.storage().lasting_write_errors().join("; ");
            let now = Instant::now();
            if errors.is_empty() {
                pace.note_success(now);
            } else if pace.is_due(now) {
                match self.can_write().await {
                    Ok(()) => {
                        tracing::warn!(
                            code = codes::NATS_SERVER_RESTARTED,
                            error = errors,
                            "nats-server keeps a write error, restarting it"
                        );
                        self.requested.store(true, Ordering::SeqCst);
                        pace.note_restart(now);
                        log.reset();
                    }
                    Err(why) if log.is_due(&why, now) => tracing::error!(
                        code = codes::NATS_SERVER_NOT_RESTARTED,
                        error = why,
                        "nats-server keeps a write error until its disk has room"
                    ),
                    Err(_) => {}
                }
            }
        }
    }

    async fn can_write(&self) -> Result<(), String> {
        let data = self.data.clone();
        let written = tokio::task::spawn_blocking(move || check_disk(&data)).await;
        written.unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn check_disk(data: &Path) -> Result<(), String> {
    folder::check_room(data).map_err(|error| format!("{error:#}"))
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            restarted: None,
            pause: FIRST_PAUSE,
        }
    }
}

impl Pace {
    fn is_due(&self, now: Instant) -> bool {
        self.restarted
            .is_none_or(|restarted| now.saturating_duration_since(restarted) >= self.pause)
    }

    fn note_restart(&mut self, now: Instant) {
        if self.restarted.is_some() {
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        self.restarted = Some(now);
    }

    /// A restart that helped for longer than the pause is forgotten.
    fn note_success(&mut self, now: Instant) {
        if self.is_due(now) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_that_do_not_help_become_rare() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let restarts: Vec<u64> = (0..1500)
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                let is_due = pace.is_due(now);
                if is_due {
                    pace.note_restart(now);
                }
                is_due
            })
            .collect();
        assert_eq!(restarts, [0, 10, 30, 70, 150, 310, 610, 910, 1210]);
        pace.note_success(start + Duration::from_secs(1509));
        assert_eq!(pace.pause, MAX_PAUSE, "the success is too young");
        pace.note_success(start + Duration::from_secs(1510));
        assert!(pace.restarted.is_none() && pace.pause == FIRST_PAUSE);
    }
}
