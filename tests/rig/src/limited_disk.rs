//! A small file system of its own, which a test can fill.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Mounts the file system, and keeps it until it is killed.
const HOLD: &str = r#"mount -t tmpfs -o "size=$2m" tmpfs "$1" && echo mounted && exec sleep 86400"#;

/// A tmpfs of a fixed size. It is mounted in a namespace of its own, which needs no privileges, so
/// that only processes started with its launcher see it.
pub struct LimitedDisk {
    /// The process that holds the namespace.
    holder: Child,
    path: PathBuf,
}

impl LimitedDisk {
    /// Mounts it on a folder, which is created. `None` if this machine allows no namespaces; the
    /// reason is printed.
    ///
    /// # Panics
    /// The machine allows none, and the environment variable `CI` is set.
    pub async fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).expect("the rig's folder is writable");
        let holder = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                HOLD,
                "sh",
            ])
            .arg(path)
            .arg(mebibytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mounted = async {
            let mut holder = holder.ok()?;
            let mut answer = String::new();
            let output = holder.stdout.take()?;
            BufReader::new(output).read_line(&mut answer).await.ok()?;
            (answer == "mounted\n").then_some(holder)
        };
        let Some(holder) = mounted.await else {
            let reason = "skipped: this machine allows no user namespace with a tmpfs";
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            eprintln!("{reason}");
            return None;
        };
        Some(Self {
            holder,
            path: path.to_owned(),
        })
    }

    /// The command that runs another one where the disk is mounted.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let holder = self.holder();
        let command = ["nsenter", "--preserve-credentials", "--user", "--mount"];
        let target = ["--target", &holder, "--"];
        command
            .iter()
            .chain(&target)
            .map(ToString::to_string)
            .collect()
    }

    fn holder(&self) -> String {
        let id = self
            .holder
            .id()
            .expect("the holder runs until it is killed");
        id.to_string()
    }

    fn file(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder()));
        let path = self.path.strip_prefix("/").unwrap_or(&self.path);
        root.join(path).join("of-somebody-else")
    }

    /// Fills it completely, as another program would.
    pub fn fill(&self) {
        let mut file = File::create(self.file()).expect("the disk can be written");
        let block = [b'.'; 4096];
        let full = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// Frees what [`LimitedDisk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.file()).expect("the disk was filled");
    }
}

/// A command, or the executable run by a command.
pub(crate) fn launched(launcher: &[String], executable: &Path) -> Command {
    let Some((first, rest)) = launcher.split_first() else {
        return Command::new(executable);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(executable);
    command
}
