//! The data folder of the embedded nats-server: its lock, its files and its storage limit.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::FlockOperation;

/// The largest storage limit that is derived from the free disk space, in bytes.
const MAX_STORAGE: u64 = 40 << 30;

/// The free disk space that is needed after a write error, in bytes. Less would be full at once.
const ROOM: u64 = 32 << 20;
/// The size of the file that checks whether the disk can be written.
const PROBE: usize = 1 << 20;

/// Creates the folder if it is missing, and checks that it can be written.
pub fn prepare(data: &Path) -> anyhow::Result<PathBuf> {
    let unwritable = || {
        format!(
            "cannot write to the data folder {}: pass another with --data",
            data.display()
        )
    };
    fs::create_dir_all(data).with_context(unwritable)?;
    let probe = data.join(".writable");
    fs::write(&probe, b"tidings").with_context(unwritable)?;
    let _ = fs::remove_file(&probe);
    data.canonicalize().with_context(unwritable)
}

/// Locks the folder. The lock lasts as long as the returned file is open.
pub fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "the data folder {} is in use by another `tidings up` or `tidings ingest --edge`: pass \
             another with --data",
            data.display()
        );
    }
    Ok(file)
}

/// Three quarters of the disk space that is free or that the folder uses already, but no more than
/// the streams can use. A limit below what is stored would refuse every write.
pub fn storage_limit(data: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(data)
        .with_context(|| format!("cannot read the free space of {}", data.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let used = disk_usage(data);
    ensure!(
        free + used >= 64 << 20,
        "the data folder {} is on a disk with less than 64 MiB free: pass another with --data",
        data.display()
    );
    Ok(limit(free, used))
}

/// The limit with this much free space, beside what the folder uses.
fn limit(free: u64, used: u64) -> u64 {
    ((free + used) / 4 * 3).max(used).min(MAX_STORAGE)
}

/// The disk space that the files of a folder use, in bytes. What cannot be read counts as nothing.
fn disk_usage(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let used = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.blocks().saturating_mul(512),
        Err(_) => 0,
    });
    used.sum()
}

/// Checks that the folder's disk can be written, after an error. A quota or a broken disk refuses
/// the file even if the file system reports free space.
pub fn check_room(data: &Path) -> anyhow::Result<()> {
    let disk = rustix::fs::statvfs(data)
        .with_context(|| format!("cannot read the free space of {}", data.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        free >= ROOM,
        "the disk of the data folder {} has {} MiB free; {} MiB are needed",
        data.display(),
        free >> 20,
        ROOM >> 20
    );
    let probe = data.join(".room");
    let written = File::create(&probe).and_then(|mut file| {
        file.write_all(&vec![b'.'; PROBE])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&probe);
    written.with_context(|| format!("cannot write to the data folder {}", data.display()))
}

/// Writes a file that only this user can read.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let unwritable = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(unwritable)?;
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(unwritable)?;
    file.write_all(text.as_bytes()).with_context(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_stored_does_not_lower_the_limit_of_the_next_start() {
        assert_eq!(limit(8 * GIB, 0), 6 * GIB);
        for stored in 1..=6 {
            assert_eq!(limit((8 - stored) * GIB, stored * GIB), 6 * GIB, "{stored}");
        }
        assert_eq!(limit(GIB, 7 * GIB), 7 * GIB, "others use the disk, too");
        assert_eq!(limit(1000 * GIB, 0), MAX_STORAGE);
    }

    #[test]
    fn files_of_all_folders_below_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(disk_usage(folder.path()), 0);
        let below = folder.path().join("jetstream/EVENTS");
        fs::create_dir_all(&below).unwrap();
        for path in [folder.path().join("nats.conf"), below.join("1.blk")] {
            let mut file = File::create(path).unwrap();
            file.write_all(&vec![b'.'; 1 << 20]).unwrap();
            file.sync_all().unwrap();
        }
        assert!(disk_usage(folder.path()) >= 2 << 20);
    }
}
