//! Work that an attempt has started and that can outlive its future, such as a request to another
//! thread. The crash guard holds the delivery accountable until all of it has ended.

use tokio::sync::watch;

tokio::task_local! {
    static ATTEMPT: Accountability;
}

/// What one attempt has started.
#[derive(Clone)]
pub struct Accountability(watch::Sender<usize>);

/// Work in progress. It has ended when this is dropped.
pub struct Hold(Accountability);

/// Registers work of the current attempt; `None` outside of an attempt.
pub fn hold() -> Option<Hold> {
    ATTEMPT.try_with(|attempt| attempt.clone().into_hold()).ok()
}

impl Accountability {
    /// Of an attempt that has started nothing yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Does the work of the attempt.
    pub async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        ATTEMPT.scope(self.clone(), work).await
    }

    /// Whether nothing that was started is in progress.
    pub fn has_ended(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until nothing that was started is in progress.
    pub async fn ended(&self) {
        let mut changes = self.0.subscribe();
        // The sender is `self`, so it is not gone.
        let _ = changes.wait_for(|holds| *holds == 0).await;
    }

    fn into_hold(self) -> Hold {
        self.0.send_modify(|holds| *holds += 1);
        Hold(self)
    }
}

impl Default for Accountability {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.send_modify(|holds| *holds -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_attempt_has_ended_when_all_that_it_started_has_ended() {
        assert!(hold().is_none(), "outside of an attempt");
        let attempt = Accountability::new();
        let (first, second) = attempt.of(async { (hold(), hold()) }).await;
        assert!(attempt.ended().now_or_never().is_none());
        drop(first);
        assert!(attempt.ended().now_or_never().is_none());
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert!(attempt.ended().now_or_never().is_some());
    }
}
