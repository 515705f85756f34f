//! What can't be used at start ends the process with a sentence that names it.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidings_rig::{Rig, Role, free_port};

use crate::TIDINGS;
use crate::command::{text, tidings, tidings_with};

/// `tidings up` with what it needs, less what a test gives itself.
fn up(rig: &Rig, more: &[&str]) -> Vec<String> {
    let defaults = [
        ("--data", text(&rig.folder().join("data")).to_owned()),
        ("--rules", text(rig.rules().folder()).to_owned()),
        ("--listen", format!("127.0.0.1:{}", free_port())),
        ("--admin", format!("127.0.0.1:{}", free_port())),
    ];
    let kept = defaults
        .into_iter()
        .filter(|(flag, _)| !more.contains(flag));
    let flags = kept.flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["up".to_owned()]
        .into_iter()
        .chain(flags)
        .chain(more.iter().map(|&argument| argument.to_owned()))
        .collect()
}

/// Starts `up`, which must end by itself and name these texts.
async fn refuses(rig: &Rig, environment: &[(&str, &str)], more: &[&str], named: &[&str]) {
    let arguments = up(rig, more);
    let ended = tidings_with(
        environment,
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    ended.failed_naming(named);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_written() {
    let rig = Rig::start(TIDINGS).await;
    let file = rig.folder().join("file");
    fs::write(&file, "a file").unwrap();
    for data in [
        file.as_path(),
        &file.join("below"),
        Path::new("/proc/tidings"),
        Path::new("/sys/tidings"),
    ] {
        refuses(&rig, &[], &["--data", text(data)], &["--data", text(data)]).await;
    }
}

/// A disk of 8 MiB, there until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tidings"])
            .arg(folder)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_data_folder_without_room() {
    let rig = Rig::start(TIDINGS).await;
    let small = rig.folder().join("small");
    fs::create_dir(&small).unwrap();
    let Some(_mounted) = SmallDisk::mount(&small) else {
        println!("skipped: a small disk can be mounted by root only");
        return;
    };
    let data = small.join("data");
    refuses(
        &rig,
        &[],
        &["--data", text(&data)],
        &["--data", text(&data), "64 MiB"],
    )
    .await;
    fs::write(small.join("filler"), vec![0; 16 << 20]).unwrap_err();
    let _ = fs::remove_dir_all(&data);
    refuses(
        &rig,
        &[],
        &["--data", text(&data)],
        &["--data", text(&data)],
    )
    .await;
}

#[tokio::test]
async fn a_data_folder_in_use() {
    let rig = Rig::start(TIDINGS).await;
    let first = rig.run(Role::up_with_own_server()).await;
    refuses(
        &rig,
        &[],
        &[],
        &[
            "data folder",
            text(&rig.folder().join("data")),
            "in use by another `tidings up`",
            "--data",
        ],
    )
    .await;
    assert_eq!(first.readiness().await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let rig = Rig::start(TIDINGS).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let nats = rig.url();
    for flag in ["--listen", "--admin"] {
        refuses(&rig, &[], &[flag, &address], &[flag, &address]).await;
        refuses(
            &rig,
            &[],
            &["--nats", nats, flag, &address],
            &[flag, &address],
        )
        .await;
        assert!(
            !rig.folder().join("data/nats.json").exists(),
            "its nats-server has ended too"
        );
    }
}

#[tokio::test]
async fn rules_that_are_not_there() {
    let rig = Rig::start(TIDINGS).await;
    let missing = rig.folder().join("missing");
    refuses(
        &rig,
        &[],
        &["--rules", text(&missing)],
        &["--rules", text(&missing)],
    )
    .await;
    tidings(&[
        "router",
        "--nats",
        "nats://127.0.0.1:1",
        "--admin",
        "127.0.0.1:0",
    ])
    .await
    .failed_naming(&["--rules"]);
    tidings(&[
        "ingest",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ])
    .await
    .failed_naming(&["--nats"]);
}

#[tokio::test]
async fn a_nats_server_that_is_missing_or_too_old() {
    let rig = Rig::start(TIDINGS).await;
    let missing = rig.folder().join("no-nats-server");
    refuses(
        &rig,
        &[("NATS_SERVER", text(&missing))],
        &[],
        &["NATS_SERVER", text(&missing), "2.12"],
    )
    .await;
    refuses(
        &rig,
        &[],
        &["--nats-server", text(&missing)],
        &["--nats-server", text(&missing), "2.12"],
    )
    .await;

    let old = rig.folder().join("old-nats-server");
    for (says, named) in [
        ("nats-server: v2.11.9", "2.11"),
        ("something else", "something else"),
    ] {
        fs::write(&old, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        refuses(
            &rig,
            &[("NATS_SERVER", text(&old))],
            &[],
            &[text(&old), named],
        )
        .await;
    }
}
