//! Runs slow work without blocking the other tasks of its thread.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};

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

/// Waits for asynchronous work in code that is not asynchronous, inside of a runtime or not.
///
/// # Errors
/// The work cannot be started, or panicked.
pub fn wait_for<T: Send>(work: impl Future<Output = T> + Send) -> io::Result<T> {
    let wait = || {
        Ok(Builder::new_current_thread()
            .enable_time()
            .build()?
            .block_on(work))
    };
    // A thread that belongs to a runtime cannot wait.
    let on_its_own_thread = || {
        thread::scope(|scope| {
            let waiting = thread::Builder::new().spawn_scoped(scope, wait)?;
            let panicked = |_| Err(io::Error::other("the work panicked"));
            waiting.join().unwrap_or_else(panicked)
        })
    };
    run_blocking(on_its_own_thread)
}
