//! The open connections of a server, and which of them is closed for a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Limits the connections of a server.
pub struct Connections {
    most: usize,
    started: Instant,
    open: Mutex<State>,
    count: Gauge,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Arc<Open>>,
}

/// What the server waits for on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The peer sends no request, or only a part of its headers.
    Waiting,
    /// The peer sends a body.
    Receiving,
    /// A request is complete and is being handled, or its answer is still being made.
    Handling,
}

struct Open {
    phase: AtomicU8,
    /// When the peer last sent something, in milliseconds since the start.
    last_ms: AtomicU64,
    close: CancellationToken,
}

/// An open connection, until it is dropped.
pub struct Connection {
    connections: Arc<Connections>,
    id: u64,
    open: Arc<Open>,
}

/// Reports the progress of a request to its connection. An extension of every request.
#[derive(Clone)]
pub struct Progress {
    connections: Arc<Connections>,
    open: Arc<Open>,
}

impl Connections {
    /// No connections yet. `count` shows how many are open.
    pub fn new(most: usize, count: Gauge) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            started: Instant::now(),
            open: Mutex::default(),
            count,
        })
    }

    /// The most connections at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.lock().open.len() >= self.most
    }

    pub(super) fn open(self: &Arc<Self>) -> Connection {
        let open = Arc::new(Open {
            phase: AtomicU8::new(Phase::Waiting as u8),
            last_ms: AtomicU64::new(self.now_ms()),
            close: CancellationToken::new(),
        });
        let mut state = self.open.lock();
        let id = state.next;
        state.next += 1;
        state.open.insert(id, open.clone());
        self.count
            .set(i64::try_from(state.open.len()).unwrap_or(i64::MAX));
        Connection {
            connections: self.clone(),
            id,
            open,
        }
    }

    /// Closes the connection whose peer has been silent for the longest time. Returns whether there
    /// was one: a request that is being handled is not interrupted.
    pub(super) fn close_longest_silent(&self) -> bool {
        let mut state = self.open.lock();
        let silent = state.open.iter().filter(|(_, open)| !open.is_handling());
        let longest = silent.min_by_key(|(id, open)| (open.last_ms.load(Ordering::Relaxed), **id));
        let Some(id) = longest.map(|(id, _)| *id) else {
            return false;
        };
        if let Some(open) = state.open.remove(&id) {
            open.close.cancel();
        }
        true
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Open {
    fn is_handling(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Handling as u8
    }

    fn enter(&self, phase: Phase, now_ms: u64) {
        self.last_ms.store(now_ms, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

impl Connection {
    pub(super) fn enter(&self, phase: Phase) {
        self.open.enter(phase, self.connections.now_ms());
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            connections: self.connections.clone(),
            open: self.open.clone(),
        }
    }

    /// Waits until the connection has to close for a new one.
    pub(super) async fn closed(&self) {
        self.open.close.cancelled().await;
    }
}

impl Progress {
    /// A part of the body has arrived.
    pub fn received(&self) {
        self.open.enter(Phase::Receiving, self.connections.now_ms());
    }

    /// The body is complete. From now on the connection is not closed for a new one.
    pub fn complete(&self) {
        self.open.enter(Phase::Handling, self.connections.now_ms());
    }

    /// The answer is complete. From now on the connection waits for another request.
    pub(super) fn answered(&self) {
        self.open.enter(Phase::Waiting, self.connections.now_ms());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.connections.open.lock();
        state.open.remove(&self.id);
        let count = i64::try_from(state.open.len()).unwrap_or(i64::MAX);
        self.connections.count.set(count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_silent_for_the_longest_time_is_closed_first() {
        let connections = Connections::new(4, Gauge::default());
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(connections.open());
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        assert!(connections.is_full());
        let [handled, receiving, waiting, later] = &opened[..] else {
            unreachable!()
        };
        handled.progress().complete();
        receiving.enter(Phase::Receiving);
        let is_closed = |connection: &Connection| connection.open.close.is_cancelled();
        assert!(connections.close_longest_silent() && is_closed(waiting));
        tokio::time::advance(Duration::from_millis(5)).await;
        receiving.progress().received();
        assert!(connections.close_longest_silent() && is_closed(later));
        assert!(connections.close_longest_silent() && is_closed(receiving));
        assert!(!connections.close_longest_silent() && !is_closed(handled));
        drop(opened);
        assert_eq!(connections.open.lock().open.len(), 0);
        assert_eq!(connections.count.get(), 0);
    }
}
