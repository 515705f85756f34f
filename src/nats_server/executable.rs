//! Finds a nats-server that is new enough.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The oldest version with message schedules.
const OLDEST: (u64, u64) = (2, 12);

/// Returns the given executable, or an error if it is too old. If none is given, returns the first
/// that is new enough: on PATH, next to this executable, or in `.tools/bin` of a parent folder,
/// where `make build` installs it.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return check_version(given);
    }
    let on_path = check_version(Path::new("nats-server"));
    if on_path.is_ok() {
        return on_path;
    }
    let tidings = std::env::current_exe().unwrap_or_default();
    let next_to_it = tidings.parent().map(|folder| folder.join("nats-server"));
    let installed = tidings
        .ancestors()
        .map(|folder| folder.join(".tools/bin/nats-server"));
    let mut candidates = next_to_it
        .into_iter()
        .chain(installed)
        .filter(|candidate| candidate.is_file());
    candidates
        .find_map(|candidate| check_version(&candidate).ok())
        .map_or(on_path, Ok)
}

fn check_version(executable: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new(executable)
        .arg("--version")
        .output()
        .with_context(|| {
            format!(
                "cannot run {}: install nats-server 2.12 or later (`make build` does), or pass its \
                 path with --nats-server or NATS_SERVER",
                executable.display()
            )
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version(&text).with_context(|| {
        format!(
            "{} --version does not print a version: {}",
            executable.display(),
            text.trim()
        )
    })?;
    ensure!(
        version >= OLDEST,
        "{} is version {}.{}, which has no message schedules: install nats-server 2.12 or later",
        executable.display(),
        version.0,
        version.1
    );
    Ok(executable.to_owned())
}

/// The major and minor version of a line such as `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.trim().rsplit(['v', ' ']).next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_output() {
        for (text, expected) in [
            ("nats-server: v2.15.1\n", Some((2, 15))),
            ("nats-server: v2.9.10", Some((2, 9))),
            ("nats-server: v2.12.0-RC.1", Some((2, 12))),
            ("something else", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
        assert!((2, 9) < OLDEST && (2, 12) >= OLDEST);
    }
}
