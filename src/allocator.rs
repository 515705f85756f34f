//! The allocator, and settings that it and the C library read when a process starts.
//!
//! Nearly all memory comes from mimalloc, which needs less CPU time than that of the C library. C
//! code, such as the cryptography, uses that of the C library. A process that works within a memory
//! limit cannot afford that freed memory stays with it, so both return it soon
//! (`docs/decisions/0023-memory.md`).

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Freed memory is returned after 100 ms, and no small allocation takes a page of 2 MiB. The C
/// library has few heaps, and returns blocks of 128 KiB and more when they are freed.
const SETTINGS: [(&str, &str); 5] = [
    ("MIMALLOC_PURGE_DELAY", "100"),
    ("MIMALLOC_ALLOW_THP", "0"),
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
