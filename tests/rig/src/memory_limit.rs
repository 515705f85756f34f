//! A memory limit for a process and its children: a cgroup if this machine lets us create one, and
//! a thread that kills the process above the limit otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::port::free_port;

/// How often the thread reads the memory in use.
const INTERVAL: Duration = Duration::from_millis(200);

/// A limit in bytes. Dropping it ends the supervision.
pub(crate) struct MemoryLimit {
    bytes: u64,
    group: Option<Group>,
    peak: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl MemoryLimit {
    /// Creates a cgroup with this limit, if possible.
    pub(crate) fn new(bytes: u64) -> Self {
        let group = Group::create(bytes);
        if group.is_none() {
            println!("no memory cgroup can be created: a thread limits the memory instead");
        }
        Self {
            bytes,
            group,
            peak: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// The file to which a process writes its id in order to be limited.
    pub(crate) fn processes(&self) -> Option<PathBuf> {
        Some(self.group.as_ref()?.folder.join("cgroup.procs"))
    }

    /// Reads the memory of a process and its children until the limit is dropped.
    pub(crate) fn supervise(&self, process: u32) {
        let (bytes, peak, ended) = (self.bytes, self.peak.clone(), self.ended.clone());
        let is_limited = self.group.is_some();
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let used = anonymous_bytes(process);
                peak.fetch_max(used, Ordering::Relaxed);
                if used > bytes && !is_limited {
                    let _ = Pid::from_raw(process.cast_signed())
                        .map(|process| kill_process(process, Signal::KILL));
                }
                thread::sleep(INTERVAL);
            }
        });
    }

    /// The most memory in use, in bytes. Files in the page cache do not count.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A cgroup of either version. Dropping it removes the group if its processes have ended.
struct Group {
    folder: PathBuf,
}

impl Group {
    fn create(bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |marker: &str| {
            let line = own.lines().find_map(|line| line.split_once(marker));
            line.map(|(_, path)| path.trim_start_matches('/').to_owned())
        };
        let name = format!("tidings-test-{}-{}", std::process::id(), free_port());
        let version_1 = path(":memory:/").map(|path| {
            (
                Path::new("/sys/fs/cgroup/memory").join(path),
                "memory.limit_in_bytes",
            )
        });
        let version_2 =
            path("0::/").map(|path| (Path::new("/sys/fs/cgroup").join(path), "memory.max"));
        [version_1, version_2]
            .into_iter()
            .flatten()
            .find_map(|(parent, file)| {
                let folder = parent.join(&name);
                fs::create_dir(&folder).ok()?;
                let group = Self { folder };
                fs::write(group.folder.join(file), bytes.to_string()).ok()?;
                Some(group)
            })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(INTERVAL);
        }
    }
}

/// The anonymous memory of a process and of all its descendants.
fn anonymous_bytes(process: u32) -> u64 {
    let folders = fs::read_dir("/proc").expect("/proc is readable");
    let processes: Vec<Status> = folders
        .flatten()
        .filter_map(|folder| Status::read(&folder.path()))
        .collect();
    let mut family = vec![process];
    let mut bytes = 0;
    while let Some(id) = family.pop() {
        let own = processes.iter().filter(|status| status.id == id);
        bytes += own.map(|status| status.anonymous_bytes).sum::<u64>();
        let children = processes.iter().filter(|status| status.parent == id);
        family.extend(children.map(|status| status.id));
    }
    bytes
}

struct Status {
    id: u32,
    parent: u32,
    anonymous_bytes: u64,
}

impl Status {
    /// Reads `/proc/ID/status`. Kernel threads have no memory of their own.
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("status")).ok()?;
        let number = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        Some(Self {
            id: number("Pid:")?.try_into().ok()?,
            parent: number("PPid:")?.try_into().ok()?,
            anonymous_bytes: number("RssAnon:")? << 10,
        })
    }
}
