//! Changes to a record that all workers share. Changes that are requested together are made in one
//! compare-and-set.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tidings_core::Message;
use tidings_core::bus::records::Records;
use tidings_core::bus::streams;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::failpoint;
use tokio::sync::oneshot;

use crate::bounded_map::BoundedMap;

/// The longest pause after another process changed the record first.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// A change to a record, as a pure function.
pub trait Change: Send + Sync + Sized + 'static {
    /// The record.
    type Record: Message + Default + Clone + PartialEq + Send + Sync;
    /// The answer to one change.
    type Answer: Send;

    /// Makes the changes and returns an answer to each, in the same order. `now` is the server's
    /// time.
    fn apply(changes: &[Self], record: &mut Self::Record, now: Timestamp) -> Vec<Self::Answer>;
}

/// The records of one kind in the bucket `limits`.
pub struct Ledger<C: Change> {
    bus: Bus,
    records: Records,
    /// Called with every record that this process stored or loaded, and its revision.
    observe: Observe<C>,
    queues: Mutex<Queues<C>>,
}

type Waiting<C> = (C, oneshot::Sender<Result<<C as Change>::Answer, BusError>>);
type Versioned<C> = (<C as Change>::Record, Option<u64>);
type Observe<C> = Box<dyn Fn(&<C as Change>::Record, u64) + Send + Sync>;
/// All changes that wait for a record, and the cached record.
type Work<C> = (Vec<Waiting<C>>, Option<Versioned<C>>);

/// A queue for each record that is being changed, or was recently.
struct Queues<C: Change>(BoundedMap<String, Queue<C>>);

struct Queue<C: Change> {
    waiting: Vec<Waiting<C>>,
    /// The record as this process last stored it. Usually it is still current.
    last_seen: Option<Versioned<C>>,
    is_in_progress: bool,
}

impl<C: Change> Ledger<C> {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket is missing, or the bus did not answer.
    pub async fn open(
        bus: &Bus,
        observe: impl Fn(&C::Record, u64) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, BusError> {
        let records = Records::open(bus, streams::LIMITS).await?;
        Ok(Arc::new(Self {
            bus: bus.clone(),
            records,
            observe: Box::new(observe),
            queues: Mutex::new(Queues(BoundedMap::default())),
        }))
    }

    /// Makes a change, together with all others that wait for the same record. The change is made
    /// even if the returned future is dropped.
    ///
    /// # Errors
    /// The bus did not answer; the change may have been made.
    pub fn change(
        self: &Arc<Self>,
        key: &str,
        change: C,
    ) -> impl Future<Output = Result<C::Answer, BusError>> + Send + use<C> {
        let (reply, answer) = oneshot::channel();
        let must_start = self.queues.lock().join(key, (change, reply));
        if must_start {
            let (ledger, key) = (self.clone(), key.to_owned());
            tokio::spawn(async move {
                // A panic loses only the changes of its batch. Later changes need this task.
                while AssertUnwindSafe(ledger.work(&key))
                    .catch_unwind()
                    .await
                    .unwrap_or(true)
                {}
            });
        }
        async {
            answer.await.unwrap_or_else(|_| {
                Err(BusError::Unavailable("the process is stopping".to_owned()))
            })
        }
    }

    /// Makes all changes that wait for this record. Returns whether there were any.
    async fn work(&self, key: &str) -> bool {
        let Some((waiting, last_seen)) = self.queues.lock().take(key) else {
            return false;
        };
        let (changes, replies): (Vec<C>, Vec<_>) = waiting.into_iter().unzip();
        match self.make(key, &changes, last_seen).await {
            Ok((answers, last_seen)) => {
                if let (record, Some(revision)) = &last_seen {
                    (self.observe)(record, *revision);
                }
                self.queues.lock().keep(key, last_seen);
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
        true
    }

    async fn make(
        &self,
        key: &str,
        changes: &[C],
        mut last_seen: Option<Versioned<C>>,
    ) -> Result<(Vec<C::Answer>, Versioned<C>), BusError> {
        loop {
            let is_fresh = last_seen.is_none();
            let (before, revision) = match last_seen.take() {
                Some(last_seen) => last_seen,
                None => self
                    .records
                    .load(key)
                    .await
                    .map(|(record, revision)| (record.unwrap_or_default(), revision))?,
            };
            let mut record = before.clone();
            let answers = C::apply(changes, &mut record, self.bus.clock().now());
            if record == before {
                // Nothing is stored, so nothing proves that the cached record is current.
                if is_fresh {
                    return Ok((answers, (record, revision)));
                }
                continue;
            }
            failpoint::reach("worker:reserving");
            if let Some(stored) = self.records.store(key, &record, revision).await? {
                failpoint::reach("worker:reserved");
                return Ok((answers, (record, Some(stored))));
            }
            tokio::time::sleep(jitter(CONFLICT_PAUSE)).await;
        }
    }
}

impl<C: Change> Queues<C> {
    /// Adds a change. Returns whether the caller must start the work.
    fn join(&mut self, key: &str, waiting: Waiting<C>) -> bool {
        match self.0.get_mut(key) {
            Some(queue) => {
                queue.waiting.push(waiting);
                !std::mem::replace(&mut queue.is_in_progress, true)
            }
            None => {
                let queue = Queue {
                    waiting: vec![waiting],
                    last_seen: None,
                    is_in_progress: true,
                };
                self.0
                    .insert(key.to_owned(), queue, |_, queue| queue.is_in_progress);
                true
            }
        }
    }

    /// Takes all changes that wait. If there are none, the work ends.
    fn take(&mut self, key: &str) -> Option<Work<C>> {
        let queue = self.0.get_mut(key)?;
        if queue.waiting.is_empty() {
            queue.is_in_progress = false;
            return None;
        }
        Some((std::mem::take(&mut queue.waiting), queue.last_seen.take()))
    }

    fn keep(&mut self, key: &str, last_seen: Versioned<C>) {
        if let Some(queue) = self.0.get_mut(key) {
            queue.last_seen = Some(last_seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::shared_permits::PermitChange;

    fn waiting() -> Waiting<PermitChange> {
        (PermitChange::RetryAt { most: 1 }, oneshot::channel().0)
    }

    #[test]
    fn the_first_change_starts_the_work_for_all_that_wait() {
        let mut queues = Queues::<PermitChange>(BoundedMap::default());
        assert_eq!(
            [
                queues.join("a", waiting()),
                queues.join("a", waiting()),
                queues.join("b", waiting())
            ],
            [true, false, true]
        );
        assert_eq!(queues.take("a").map(|(waiting, _)| waiting.len()), Some(2));
        assert!(!queues.join("a", waiting()), "the work continues");
        assert!(queues.take("a").is_some() && queues.take("a").is_none());
        assert!(queues.join("a", waiting()));
    }

    #[test]
    fn unused_records_are_dropped_and_those_in_use_are_not() {
        let mut queues = Queues::<PermitChange>(BoundedMap::default());
        queues.join("in use", waiting());
        for number in 0..10_000 {
            let key = number.to_string();
            queues.join(&key, waiting());
            while queues.take(&key).is_some() {}
        }
        assert!(queues.0.len() <= 1000);
        assert!(!queues.join("in use", waiting()));
    }
}
