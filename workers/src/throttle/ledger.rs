//! Changes of a record that all workers share: those that come together go together, in one
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

/// Processes that meet at a record step aside for as long as this at most.
const ASIDE: Duration = Duration::from_millis(5);

/// A change of a record, as a pure function.
pub trait Change: Send + Sync + Sized + 'static {
    /// What is changed.
    type Record: Message + Default + Clone + PartialEq + Send + Sync;
    /// What came of one change.
    type Answer: Send;

    /// Makes the changes, and gives an answer for each, in their order. `now` is the server's time.
    fn apply(changes: &[Self], record: &mut Self::Record, now: Timestamp) -> Vec<Self::Answer>;
}

/// The records of one kind in the bucket `limits`.
pub struct Ledger<C: Change> {
    bus: Bus,
    records: Records,
    /// Is told every record that this process has stored or found, with its revision.
    observe: Observe<C>,
    queues: Mutex<Queues<C>>,
}

type Waiting<C> = (C, oneshot::Sender<Result<<C as Change>::Answer, BusError>>);
type Known<C> = (<C as Change>::Record, Option<u64>);
type Observe<C> = Box<dyn Fn(&<C as Change>::Record, u64) + Send + Sync>;
/// All changes that wait for a record, and what is known of it.
type Work<C> = (Vec<Waiting<C>>, Option<Known<C>>);

/// A queue for each record that is changed, or was a while ago.
struct Queues<C: Change>(BoundedMap<String, Queue<C>>);

struct Queue<C: Change> {
    waiting: Vec<Waiting<C>>,
    /// As last stored by this process: mostly it has not moved since.
    known: Option<Known<C>>,
    is_worked_on: bool,
}

impl<C: Change> Ledger<C> {
    /// Opens the bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
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

    /// Makes a change together with all that are waiting for the same record. It is made even if
    /// nobody waits for the answer.
    ///
    /// # Errors
    /// The bus can't be asked; whether the change was made is open.
    pub fn change(
        self: &Arc<Self>,
        key: &str,
        change: C,
    ) -> impl Future<Output = Result<C::Answer, BusError>> + Send + use<C> {
        let (reply, answer) = oneshot::channel();
        let begins = self.queues.lock().join(key, (change, reply));
        if begins {
            let (ledger, key) = (self.clone(), key.to_owned());
            tokio::spawn(async move {
                // A panic costs those whose changes it meets: nobody else would work on what comes
                // after them.
                while AssertUnwindSafe(ledger.work(&key))
                    .catch_unwind()
                    .await
                    .unwrap_or(true)
                {}
            });
        }
        async {
            answer
                .await
                .unwrap_or_else(|_| Err(BusError::Unavailable("the process ends".to_owned())))
        }
    }

    /// Makes all changes that wait for this record; whether there were any.
    async fn work(&self, key: &str) -> bool {
        let Some((waiting, known)) = self.queues.lock().take(key) else {
            return false;
        };
        let (changes, replies): (Vec<C>, Vec<_>) = waiting.into_iter().unzip();
        match self.make(key, &changes, known).await {
            Ok((answers, known)) => {
                if let (record, Some(revision)) = &known {
                    (self.observe)(record, *revision);
                }
                self.queues.lock().keep(key, known);
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
        mut known: Option<Known<C>>,
    ) -> Result<(Vec<C::Answer>, Known<C>), BusError> {
        loop {
            let is_fresh = known.is_none();
            let (before, revision) = match known.take() {
                Some(known) => known,
                None => self
                    .records
                    .load(key)
                    .await
                    .map(|(record, revision)| (record.unwrap_or_default(), revision))?,
            };
            let mut record = before.clone();
            let answers = C::apply(changes, &mut record, self.bus.clock().now());
            if record == before {
                // An answer that moves nothing is no proof that the record had not moved.
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
            tokio::time::sleep(jitter(ASIDE)).await;
        }
    }
}

impl<C: Change> Queues<C> {
    /// Whether whoever joins is the one to begin with the work.
    fn join(&mut self, key: &str, waiting: Waiting<C>) -> bool {
        match self.0.get_mut(key) {
            Some(queue) => {
                queue.waiting.push(waiting);
                !std::mem::replace(&mut queue.is_worked_on, true)
            }
            None => {
                let queue = Queue {
                    waiting: vec![waiting],
                    known: None,
                    is_worked_on: true,
                };
                self.0
                    .insert(key.to_owned(), queue, |_, queue| queue.is_worked_on);
                true
            }
        }
    }

    /// All that waits; where nothing does, the work has ended.
    fn take(&mut self, key: &str) -> Option<Work<C>> {
        let queue = self.0.get_mut(key)?;
        if queue.waiting.is_empty() {
            queue.is_worked_on = false;
            return None;
        }
        Some((std::mem::take(&mut queue.waiting), queue.known.take()))
    }

    fn keep(&mut self, key: &str, known: Known<C>) {
        if let Some(queue) = self.0.get_mut(key) {
            queue.known = Some(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::shared_permits::PermitChange;

    fn waiting() -> Waiting<PermitChange> {
        (PermitChange::Return { most: 1 }, oneshot::channel().0)
    }

    #[test]
    fn the_first_who_joins_works_for_all_until_nothing_waits() {
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
        assert!(!queues.join("a", waiting()), "the first is at work still");
        assert!(queues.take("a").is_some() && queues.take("a").is_none());
        assert!(queues.join("a", waiting()));
    }

    #[test]
    fn records_that_are_changed_no_more_are_forgotten_and_those_that_are_worked_on_are_not() {
        let mut queues = Queues::<PermitChange>(BoundedMap::default());
        queues.join("worked on", waiting());
        for number in 0..10_000 {
            let key = number.to_string();
            queues.join(&key, waiting());
            while queues.take(&key).is_some() {}
        }
        assert!(queues.0.len() <= 1000);
        assert!(!queues.join("worked on", waiting()));
    }
}
