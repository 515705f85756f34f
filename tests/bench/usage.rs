//! CPU time and memory of a process, from /proc.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// The unit of /proc/PID/stat (USER_HZ), which is always 100.
const TICKS_PER_SECOND: u32 = 100;

/// The resident memory of a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// The current value.
    pub resident_mib: f64,
    /// The maximum since its start.
    pub peak_mib: f64,
}

/// Reads the resident memory of a process.
///
/// # Errors
/// The process does not exist or cannot be read.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = read(pid, "status")?;
    let mib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib: Option<f64> =
            line.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("/proc/{pid}/status has no {field}"))
    };
    Ok(Memory {
        resident_mib: mib("VmRSS:")?,
        peak_mib: mib("VmHWM:")?,
    })
}

/// The CPU time of a process so far: all threads, in user and kernel mode.
///
/// # Errors
/// The process does not exist or cannot be read.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let [user, kernel] = cpu_times(pid)?;
    Ok(user + kernel)
}

/// The CPU time of a process so far in user mode, and in the kernel.
///
/// # Errors
/// The process does not exist or cannot be read.
pub fn cpu_times(pid: u32) -> anyhow::Result<[Duration; 2]> {
    let text = read(pid, "stat")?;
    // The second field, the name, is in parentheses and may contain spaces. utime and stime are the
    // fields 14 and 15.
    let (_, fields) = text.rsplit_once(')').context("a process has a name")?;
    let mut fields = fields.split_whitespace().skip(11);
    Ok([
        time(fields.next().into_iter())?,
        time(fields.next().into_iter())?,
    ])
}

/// The CPU time of the whole machine so far.
///
/// # Errors
/// /proc/stat cannot be read.
pub fn cpu_time_of_all() -> anyhow::Result<Duration> {
    let text = read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let all = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("/proc/stat has no line cpu")?;
    // user, nice, system, idle, iowait, irq, softirq, steal. The first two include the rest.
    let busy = all
        .split_whitespace()
        .take(8)
        .enumerate()
        .filter(|(field, _)| !matches!(field, 3 | 4));
    time(busy.map(|(_, ticks)| ticks))
}

fn time<'a>(ticks: impl Iterator<Item = &'a str>) -> anyhow::Result<Duration> {
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs(ticks) / TICKS_PER_SECOND)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    read_to_string(&path)
        .with_context(|| format!("cannot read {path}: does the process still exist?"))
}
