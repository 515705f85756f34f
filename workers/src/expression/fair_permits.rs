//! Permits to use an evaluator, given fairly: no tenant has two at a time, and tenants take turns.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A tenant with this many waiters, of which the first waits for [`SLOW_AFTER`], gets no more: its
/// waiters would keep the deliveries of other tenants out of memory.
const MOST_OF_A_SLOW_TENANT: usize = 32;
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// One permit for each of some things.
pub struct FairPermits<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    /// The last one was used most recently.
    free: Vec<T>,
    /// The tenants that have a permit.
    served: HashSet<String>,
    /// Who waits. A tenant that had a permit moves to the end.
    waiting: VecDeque<(String, VecDeque<Waiter<T>>)>,
}

struct Waiter<T> {
    since: Instant,
    receiver: oneshot::Sender<Permit<T>>,
}

/// A permit of a tenant. It is given back when it is dropped.
pub struct Permit<T> {
    tenant: String,
    /// What it is for; `None` after it was given back.
    thing: Option<T>,
    permits: FairPermits<T>,
}

impl<T> FairPermits<T> {
    /// Permits for these things.
    pub fn new(things: Vec<T>) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: things,
            served: HashSet::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Waits for a permit. Dropping the future ends the wait. `None`: the tenant is slow, and too
    /// many wait already.
    pub async fn acquire(&self, tenant: &str) -> Option<Permit<T>> {
        let (receiver, permit) = oneshot::channel();
        let since = Instant::now();
        let is_queued = self.0.lock().enqueue(tenant, Waiter { since, receiver });
        if !is_queued {
            return None;
        }
        self.give();
        permit.await.ok()
    }

    fn give(&self) {
        // Not under the lock: a permit whose waiter is gone is dropped, and gives itself back.
        loop {
            let Some((tenant, thing, waiter)) = self.0.lock().next() else {
                return;
            };
            let _ = waiter.receiver.send(Permit {
                tenant,
                thing: Some(thing),
                permits: self.clone(),
            });
        }
    }
}

impl<T> Clone for FairPermits<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> State<T> {
    fn enqueue(&mut self, tenant: &str, waiter: Waiter<T>) -> bool {
        let mut queues = self.waiting.iter_mut();
        let Some((_, queue)) = queues.find(|(name, _)| name == tenant) else {
            let queue = VecDeque::from([waiter]);
            self.waiting.push_back((tenant.to_owned(), queue));
            return true;
        };
        queue.retain(|waiter| !waiter.receiver.is_closed());
        let is_slow = |first: &Waiter<T>| first.since.elapsed() >= SLOW_AFTER;
        if queue.len() >= MOST_OF_A_SLOW_TENANT && queue.front().is_some_and(is_slow) {
            return false;
        }
        queue.push_back(waiter);
        true
    }

    /// The next waiter that gets a permit: of the first tenant that has none.
    fn next(&mut self) -> Option<(String, T, Waiter<T>)> {
        if self.free.is_empty() {
            return None;
        }
        for (_, queue) in &mut self.waiting {
            while queue.front().is_some_and(|it| it.receiver.is_closed()) {
                queue.pop_front();
            }
        }
        self.waiting.retain(|(_, queue)| !queue.is_empty());
        let mut tenants = self.waiting.iter();
        let position = tenants.position(|(tenant, _)| !self.served.contains(tenant))?;
        let (tenant, mut queue) = self.waiting.remove(position)?;
        let waiter = queue.pop_front()?;
        if !queue.is_empty() {
            self.waiting.push_back((tenant.clone(), queue));
        }
        self.served.insert(tenant.clone());
        Some((tenant, self.free.pop()?, waiter))
    }
}

impl<T> Permit<T> {
    /// What the permit is for.
    pub fn thing(&self) -> Option<&T> {
        self.thing.as_ref()
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        {
            let mut state = self.permits.0.lock();
            state.free.extend(self.thing.take());
            state.served.remove(&self.tenant);
        }
        self.permits.give();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    fn waits(permits: &FairPermits<u8>, tenant: &str) -> BoxFuture<'static, Option<Permit<u8>>> {
        let (permits, tenant) = (permits.clone(), tenant.to_owned());
        async move { permits.acquire(&tenant).await }.boxed()
    }

    #[test]
    fn no_tenant_has_two_permits_and_tenants_take_turns() {
        let permits = FairPermits::new(vec![1, 2]);
        let first = permits.acquire("a").now_or_never().flatten();
        assert!(first.is_some());
        let [mut second, mut third] = [waits(&permits, "a"), waits(&permits, "a")];
        assert!((&mut second).now_or_never().is_none(), "only one for each");
        assert!((&mut third).now_or_never().is_none());
        let other = permits.acquire("b").now_or_never().flatten();
        assert!(other.is_some());
        let mut last = waits(&permits, "c");
        assert!((&mut last).now_or_never().is_none(), "all are used");
        drop(first);
        let second = (&mut second).now_or_never().expect("it waited longest");
        drop(second);
        let last = (&mut last).now_or_never().expect("before the third of a");
        drop((other, last));
        assert!((&mut third).now_or_never().is_some());
    }

    #[test]
    fn a_waiter_that_is_gone_costs_no_permit() {
        let permits = FairPermits::new(vec![1]);
        let first = permits.acquire("a").now_or_never().flatten();
        assert!(first.is_some());
        for tenant in ["a", "b"] {
            let mut gone = waits(&permits, tenant);
            assert!((&mut gone).now_or_never().is_none());
        }
        let mut given = waits(&permits, "c");
        assert!((&mut given).now_or_never().is_none());
        drop(first);
        // A permit that was sent and not received.
        drop(given);
        assert!(permits.acquire("d").now_or_never().is_some());
        assert_eq!(permits.0.lock().free, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_tenant_has_a_limited_number_of_waiters() {
        let permits = FairPermits::new(vec![1, 2]);
        let first = permits.acquire("a").await;
        let mut all: Vec<_> = (0..100).map(|_| waits(&permits, "a")).collect();
        for waiter in &mut all {
            assert!(waiter.now_or_never().is_none(), "it is not slow yet");
        }
        tokio::time::advance(SLOW_AFTER).await;
        assert!(matches!(permits.acquire("a").now_or_never(), Some(None)));
        assert!(permits.acquire("b").await.is_some());
        all.truncate(MOST_OF_A_SLOW_TENANT - 1);
        assert!(permits.acquire("a").now_or_never().is_none(), "it waits");
        drop(first);
    }
}
