//! The state that a process keeps between its terms as the leader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::kubernetes::cursor::Cursor;
use crate::kubernetes::recovery::RecoveredKeys;
use crate::kubernetes::repeat_filter::RepeatFilter;

/// The state that a process keeps between its terms as the leader.
pub struct WatchState {
    pub(super) repeat_filter: Mutex<RepeatFilter>,
    /// Whether all Events that passed the repeat filter are stored.
    is_complete: AtomicBool,
    /// The last cursor of this process. Used if the Lease has none, for example after it was
    /// deleted.
    pub(super) reached: Mutex<Option<Cursor>>,
    pub(super) recovered: Mutex<RecoveredKeys>,
}

impl WatchState {
    /// The state before the first term. A recurring Event is stored once per `repeat_interval`.
    pub fn new(repeat_interval: Duration) -> Self {
        Self {
            repeat_filter: Mutex::new(RepeatFilter::new(repeat_interval)),
            is_complete: AtomicBool::new(true),
            reached: Mutex::default(),
            recovered: Mutex::default(),
        }
    }

    /// Clears the repeat filter if the last term ended before all Events were stored.
    pub(super) fn start_term(&self) {
        if !self.is_complete.swap(false, Ordering::Relaxed) {
            self.repeat_filter.lock().clear();
        }
    }

    pub(super) fn complete_term(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }
}
