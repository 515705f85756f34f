//! Which delivery ends the process that attempts it: how that is found out without holding up the
//! others.
//!
//! When a process dies, all deliveries that it held come again, and one of them may be the cause.
//! Each of these suspects is attempted alone in its process at first, and its beginning is noted in
//! the bucket `suspects`; who dies then is known. What ends a process does so early, while it is
//! read and written: an attempt counts as young for a moment only, so that a service which hangs
//! holds up nobody.

use std::pin::pin;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use tidings_core::bus::BusError;
use tidings_core::bus::crash_marks::CrashMarks;
use tidings_core::runtime::failpoint;
use tokio::sync::RwLock;
use tokio::time::timeout;

/// An attempt is young for this long: nobody else begins beside a suspect that is.
const YOUNG_FOR: Duration = Duration::from_millis(200);
/// So many processes may end while they attempt a delivery alone.
const MOST_ENDS: u32 = 5;
/// What has come this often is watched to its end: it may end its process late.
const SLOW_SUSPECT: i64 = 20;

/// Keeps suspects apart from one another and from what is young beside them.
pub struct CrashGuard {
    suspects: CrashMarks,
    /// Held for reading by first attempts and for writing by suspects, while they are young.
    young: RwLock<()>,
}

/// What came of attempting a suspect.
pub enum Guarded<T> {
    /// The attempt ended, well or badly.
    Ended(T),
    /// It has ended too many processes alone, and was not attempted.
    Poison,
    /// The bus can't be asked: it was not attempted.
    Unknown(BusError),
}

impl CrashGuard {
    /// Nobody is examined yet.
    pub fn new(suspects: CrashMarks) -> Self {
        Self {
            suspects,
            young: RwLock::new(()),
        }
    }

    /// Does the work of a delivery that came for the first time.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let young = self.young.read().await;
        match timeout(YOUNG_FOR, &mut work).await {
            Ok(ended) => ended,
            Err(_) => {
                drop(young);
                work.await
            }
        }
    }

    /// Does the work of a delivery that has come `times` times, alone while it is young.
    ///
    /// # Guarantees
    /// Only a delivery whose own attempts ended five processes is guilty, whatever was held beside
    /// it.
    pub async fn alone<T>(
        &self,
        delivery_id: &str,
        times: i64,
        work: impl Future<Output = T>,
    ) -> Guarded<T> {
        let mut work = pin!(work);
        let young = self.young.write().await;
        failpoint::reach("worker:suspecting");
        let begun = self.suspects.begin(delivery_id).await;
        failpoint::reach("worker:suspected");
        match begun {
            Ok(ends) if ends >= MOST_ENDS => {
                self.clear(delivery_id).await;
                return Guarded::Poison;
            }
            Ok(_) => {}
            Err(error) => return Guarded::Unknown(error),
        }
        if times >= SLOW_SUSPECT {
            let ended = work.await;
            self.clear(delivery_id).await;
            return Guarded::Ended(ended);
        }
        let early = timeout(YOUNG_FOR, &mut work).await;
        self.clear(delivery_id).await;
        drop(young);
        Guarded::Ended(match early {
            Ok(ended) => ended,
            Err(_) => work.await,
        })
    }

    async fn clear(&self, delivery_id: &str) {
        match self.suspects.clear(delivery_id).await {
            Ok(()) => failpoint::reach("worker:cleared"),
            Err(error) => {
                tracing::debug!(code = codes::CRASH_MARK_NOT_CLEARED, %error, delivery.id = delivery_id, "crash mark not cleared")
            }
        }
    }
}
