//! Values that are read at most once in a while, however many ask for them.

use std::collections::HashMap;
use std::hash::Hash;
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

    /// Forgets the value, because something changed.
    pub async fn forget(&self) {
        *self.last.lock().await = None;
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

/// The most questions whose answers are kept.
const MOST_KEPT: usize = 64;

/// A value for each question.
pub struct CachedAnswers<K, T> {
    age: Duration,
    kept: parking_lot::Mutex<HashMap<K, Kept<T>>>,
}

/// When a question was asked last, and its answer.
type Kept<T> = (Instant, Arc<Cached<T>>);

impl<K: Clone + Eq + Hash, T> CachedAnswers<K, T> {
    /// A value is read again after `age`.
    pub fn new(age: Duration) -> Self {
        Self {
            age,
            kept: parking_lot::Mutex::default(),
        }
    }

    /// The value for a question. If there are too many questions, that of the one that was asked
    /// least recently is forgotten.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn get(
        &self,
        question: K,
        read: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<Arc<T>> {
        let cached = self.of(question);
        cached.get(read).await
    }

    /// Forgets all answers, because something changed.
    pub fn forget(&self) {
        self.kept.lock().clear();
    }

    fn of(&self, question: K) -> Arc<Cached<T>> {
        let mut kept = self.kept.lock();
        // Answers can be large, so none is kept for longer than it is used.
        kept.retain(|_, (asked, _)| asked.elapsed() < self.age);
        if kept.len() >= MOST_KEPT && !kept.contains_key(&question) {
            let least = kept.iter().min_by_key(|(_, (asked, _))| *asked);
            let least = least.map(|(question, _)| question.clone());
            least.and_then(|question| kept.remove(&question));
        }
        let (asked, cached) = kept
            .entry(question)
            .or_insert_with(|| (Instant::now(), Arc::new(Cached::new(self.age))));
        *asked = Instant::now();
        cached.clone()
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
    #[tokio::test(start_paused = true)]
    async fn each_question_has_its_answer_and_their_number_is_bounded() {
        let (cached, reads) = (
            CachedAnswers::new(Duration::from_secs(2)),
            AtomicUsize::new(0),
        );
        let read = async || Ok(reads.fetch_add(1, Ordering::Relaxed));
        for question in 0..MOST_KEPT {
            assert_eq!(*cached.get(question, read).await.unwrap(), question);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(*cached.get(0, read).await.unwrap(), 0);
        assert_eq!(*cached.get(MOST_KEPT, read).await.unwrap(), MOST_KEPT);
        assert_eq!(cached.kept.lock().len(), MOST_KEPT);
        assert_eq!(*cached.get(0, read).await.unwrap(), 0);
        assert_eq!(*cached.get(1, read).await.unwrap(), MOST_KEPT + 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        cached.get(2, read).await.unwrap();
        assert_eq!(cached.kept.lock().len(), 1, "unused answers are not kept");
    }
}
