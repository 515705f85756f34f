//! Settings of the C library's allocator, which reads them when a process starts.
//!
//! By default it keeps several heaps, and holes that large events leave in them are not returned to
//! the system. A process that works within a memory limit cannot afford that
//! (`docs/decisions/0023-memory.md`).

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Few heaps; blocks of this size and more are returned to the system when they are freed.
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Starts the executable again in this process, with the settings that the environment lacks.
/// Returns if there is nothing to set, or if that fails: then the process needs more memory.
pub fn apply_settings() {
    let missing = SETTINGS
        .into_iter()
        .filter(|(name, _)| env::var_os(name).is_none());
    let missing: Vec<_> = missing.collect();
    let mut arguments = env::args_os();
    if let (false, Some(name), Ok(executable)) =
        (missing.is_empty(), arguments.next(), env::current_exe())
    {
        let _ = Command::new(executable)
            .arg0(name)
            .args(arguments)
            .envs(missing)
            .exec();
    }
}
