//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for a condition. Long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` returns a value.
///
/// # Panics
/// After [`PATIENCE`]; `what` names the condition.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// Like [`eventually`], with another limit.
///
/// # Panics
/// After `limit`; `what` names the condition.
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
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
