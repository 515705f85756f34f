//! The memory limit of the cgroup, of version 2 or 1.

use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 writes a number near 2⁶³ for "no limit".
const UNLIMITED: u64 = 1 << 60;

/// The smallest limit of this process's cgroup and its parents; `None` without a limit.
pub(super) fn limit() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_in(Path::new("/sys/fs/cgroup"), &cgroups)
}

/// `cgroups` is the text of `/proc/self/cgroup`.
fn limit_in(root: &Path, cgroups: &str) -> Option<u64> {
    let limits = cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            smallest(root, path, "memory.max")
        } else if controllers
            .split(',')
            .any(|controller| controller == "memory")
        {
            smallest(&root.join("memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// The smallest limit from the cgroup up to the root. In a container the path may not exist: then
/// the root is the container's own cgroup.
fn smallest(root: &Path, path: &str, file: &str) -> Option<u64> {
    let cgroup: PathBuf = root.join(path.trim_start_matches('/'));
    let parents = cgroup
        .ancestors()
        .take_while(|parent| parent.starts_with(root));
    let limits = parents.filter_map(|parent| {
        let text = fs::read_to_string(parent.join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.filter(|bytes| *bytes < UNLIMITED).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_applies() {
        for (files, cgroups, limit) in [
            (&[("memory.max", "1000\n")][..], "0::/", Some(1000)),
            (&[("memory.max", "max\n")], "0::/", None),
            (
                &[("a/memory.max", "500\n"), ("a/b/memory.max", "max\n")],
                "0::/a/b",
                Some(500),
            ),
            (
                &[("memory.max", "700\n")],
                "0::/not/seen/in/a/container",
                Some(700),
            ),
            (
                &[("memory/a/memory.limit_in_bytes", "300\n")],
                "5:cpu,cpuacct:/a\n4:memory:/a\n0::/",
                Some(300),
            ),
            (
                &[("memory/memory.limit_in_bytes", "9223372036854771712\n")],
                "4:memory:/a\n0::/",
                None,
            ),
            (&[], "0::/", None),
        ] {
            let root = root(files);
            assert_eq!(limit_in(root.path(), cgroups), limit, "{files:?} {cgroups}");
        }
    }
}
