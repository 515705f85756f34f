//! Finds deliveries that kill their workers, without delaying other deliveries.
//!
//! When a worker dies, all deliveries that it held are redelivered, and one of them may be the
//! cause. The attempt of a redelivered delivery starts alone in its process, with a crash mark in
//! the bucket `suspects`. If the process dies during this time, the mark remains. A poison message
//! kills its process early, while it is decoded and encoded. So an attempt runs alone only for a
//! moment, and a service that hangs does not delay other deliveries. Its mark stays until work that
//! it started outside of its future, such as the evaluation of an expression, has ended, too.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tidings_core::bus::BusError;
use tidings_core::bus::crash_marks::CrashMarks;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tokio::sync::RwLock;
use tokio::time::timeout;

use crate::accountability::Accountability;

/// A redelivered delivery runs alone for this long.
const ALONE_FOR: Duration = Duration::from_millis(200);
/// A delivery with this many crash marks is a poison message.
const MOST_MARKS: u32 = 5;
/// A delivery that was delivered this often keeps its mark until its attempt ends, because it may
/// kill its process late.
const MARKED_TO_THE_END_AFTER: i64 = 20;

/// Keeps redelivered deliveries apart from each other, and from deliveries that have just begun.
pub struct CrashGuard {
    marks: CrashMarks,
    /// Held while a delivery begins: for writing if it is redelivered, else for reading.
    beginning: RwLock<()>,
}

/// The result of guarded work.
pub enum Guarded<T> {
    /// The work ended.
    Ended(T),
    /// The delivery has killed too many workers. The work did not begin.
    Poison,
    /// The bus did not answer. The work did not begin.
    BusUnavailable(BusError),
}

impl CrashGuard {
    /// A guard with these marks.
    pub fn new(marks: CrashMarks) -> Self {
        Self {
            marks,
            beginning: RwLock::new(()),
        }
    }

    /// Does the work of a delivery that is delivered for the first time.
    pub async fn beside_others<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let beginning = self.beginning.read().await;
        match timeout(ALONE_FOR, &mut work).await {
            Ok(ended) => ended,
            Err(_) => {
                drop(beginning);
                work.await
            }
        }
    }

    /// Does the work of a redelivered delivery, alone while it begins. `delivered` counts its
    /// deliveries by JetStream.
    ///
    /// # Guarantees
    /// A delivery is a poison message only if five workers died while they attempted it alone, or
    /// while work that this attempt had started was in progress.
    pub async fn alone<T>(
        &self,
        delivery_id: &str,
        delivered: i64,
        work: impl Future<Output = T>,
    ) -> Guarded<T> {
        let attempt = Accountability::new();
        let mut work = pin!(attempt.of(work));
        let beginning = self.beginning.write().await;
        failpoint::reach("worker:marking");
        let marks = self.marks.begin(delivery_id).await;
        failpoint::reach("worker:marked");
        match marks {
            Ok(marks) if marks >= MOST_MARKS => {
                self.clear(delivery_id).await;
                return Guarded::Poison;
            }
            Ok(_) => {}
            Err(error) => return Guarded::BusUnavailable(error),
        }
        if delivered >= MARKED_TO_THE_END_AFTER {
            let ended = match timeout(ALONE_FOR, &mut work).await {
                Ok(ended) => ended,
                Err(_) => {
                    drop(beginning);
                    work.await
                }
            };
            attempt.ended().await;
            self.clear(delivery_id).await;
            return Guarded::Ended(ended);
        }
        let early = timeout(ALONE_FOR, &mut work).await.ok();
        // Others begin while only other threads or processes work on.
        let beginning = attempt.has_ended().then_some(beginning);
        let ended = while_accountable(&mut work, early, &attempt).await;
        self.clear(delivery_id).await;
        drop(beginning);
        Guarded::Ended(match ended {
            Some(ended) => ended,
            None => work.await,
        })
    }

    async fn clear(&self, delivery_id: &str) {
        match self.marks.clear(delivery_id).await {
            Ok(()) => failpoint::reach("worker:cleared"),
            Err(error) => tracing::debug!(
                code = codes::CRASH_MARK_NOT_CLEARED,
                %error,
                delivery.id = delivery_id,
                "crash mark not cleared"
            ),
        }
    }
}

/// Works on until nothing that the work started is in progress. Returns the result if the work has
/// ended by then; `early` is the result if it has ended already.
async fn while_accountable<W: Future + Unpin>(
    work: &mut W,
    early: Option<W::Output>,
    attempt: &Accountability,
) -> Option<W::Output> {
    let ended = match early {
        Some(ended) => ended,
        None => match select(work, pin!(attempt.ended())).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), _)) => return None,
        },
    };
    attempt.ended().await;
    Some(ended)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use parking_lot::Mutex;

    use super::*;
    use crate::accountability::{Hold, hold};

    #[tokio::test]
    async fn a_delivery_is_accountable_until_everything_that_it_started_has_ended() {
        for ends in [true, false] {
            let (attempt, held) = (Accountability::new(), Arc::<Mutex<Option<Hold>>>::default());
            let mut work = pin!(attempt.of(async {
                *held.lock() = hold();
                if !ends {
                    std::future::pending::<()>().await;
                }
            }));
            let early = (&mut work).now_or_never();
            assert!(early.is_some() == ends && !attempt.has_ended());
            let mut accountable = pin!(while_accountable(&mut work, early, &attempt));
            assert!(accountable.as_mut().now_or_never().is_none());
            held.lock().take();
            assert_eq!(accountable.await, ends.then_some(()));
        }
    }
}
