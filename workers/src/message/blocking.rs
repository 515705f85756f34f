//! Runs slow work without blocking the other tasks of its thread.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs a user's template or pattern. The other tasks of this thread move to another thread.
pub fn run_blocking<T>(work: impl FnOnce() -> T) -> T {
    let has_others = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if has_others {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
