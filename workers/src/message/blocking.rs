//! Work that may take long, without holding up whatever else its thread has to do.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does what a user has written and what only its result bounds: the other tasks of this thread go
/// on elsewhere meanwhile.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let has_others = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if has_others {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
