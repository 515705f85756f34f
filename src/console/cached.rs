//! A value that is read at most once in a while, however many ask for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The last value, and when it was read.
pub struct Cached<T> {
    age: Duration,
    last: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Cached<T> {
    /// A value is read again after `age`.
    pub fn new(age: Duration) -> Self {
        Self {
            age,
            last: Mutex::new(None),
        }
    }

    /// The value. Those who ask while it is being read wait for it. An error is not kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn get(
        &self,
        read: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<Arc<T>> {
        let mut last = self.last.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.age
        {
            return Ok(value.clone());
        }
        let value = Arc::new(read().await?);
        *last = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_read_again_after_its_age_and_after_an_error() {
        let (cached, reads) = (Cached::new(Duration::from_secs(2)), AtomicUsize::new(0));
        let read = async || Ok(reads.fetch_add(1, Ordering::Relaxed));
        assert!(cached.get(async || anyhow::bail!("down")).await.is_err());
        assert_eq!(*cached.get(read).await.unwrap(), 0);
        assert_eq!(*cached.get(read).await.unwrap(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(*cached.get(read).await.unwrap(), 1);
    }
}
