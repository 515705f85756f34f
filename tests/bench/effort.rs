//! What a process did: CPU time and context switches, from /proc.

use std::fs::{self, read_to_string};
use std::time::Duration;

use crate::usage::cpu_times;

/// CPU time and context switches of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effort {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub kernel: Duration,
    /// How often its threads waited for something.
    pub waits: u64,
}

impl Effort {
    /// All CPU time.
    pub fn cpu(self) -> Duration {
        self.user + self.kernel
    }

    /// What was added since an earlier effort.
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            kernel: self.kernel.saturating_sub(before.kernel),
            waits: self.waits.saturating_sub(before.waits),
        }
    }
}

/// Reads the CPU time of a process so far, and how often its present threads waited.
///
/// # Errors
/// The process does not exist or cannot be read.
pub fn effort(pid: u32) -> anyhow::Result<Effort> {
    let [user, kernel] = cpu_times(pid)?;
    let mut waits = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended meanwhile.
        let status = read_to_string(task?.path().join("status")).unwrap_or_default();
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits += value.map_or(Ok(0), |value| value.trim().parse::<u64>())?;
    }
    Ok(Effort {
        user,
        kernel,
        waits,
    })
}
