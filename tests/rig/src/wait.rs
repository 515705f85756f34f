//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for what must happen. Long, since the machine may be busy; a condition
/// that holds ends the wait at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` gives something.
///
/// # Panics
/// After [`PATIENCE`], with `what` should have happened.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// Like [`eventually`], with a limit of its own.
///
/// # Panics
/// After `limit`, with `what` should have happened.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < end,
            "within {limit:?} it did not come true that {what}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
