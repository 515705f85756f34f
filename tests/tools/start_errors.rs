//! A process that cannot start ends with an error that names the cause.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidings_rig::{Rig, Role, free_port};

use crate::TIDINGS;
use crate::command::{text, tidings, tidings_with};

/// Arguments of `tidings up`: the defaults of the rig, with additions and replacements.
fn up_arguments(rig: &Rig, more: &[&str]) -> Vec<String> {
    let defaults = [
        ("--data", text(&rig.folder().join("data")).to_owned()),
        ("--rules", text(rig.rules().folder()).to_owned()),
        ("--listen", format!("127.0.0.1:{}", free_port())),
        ("--admin", format!("127.0.0.1:{}", free_port())),
    ];
    let defaults = defaults
        .into_iter()
        .filter(|(flag, _)| !more.contains(flag));
    let flags = defaults.flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["up".to_owned()]
        .into_iter()
        .chain(flags)
        .chain(more.iter().map(|&argument| argument.to_owned()))
        .collect()
}

/// Asserts that `tidings up` ends with an error that contains these texts.
async fn assert_up_fails(rig: &Rig, environment: &[(&str, &str)], more: &[&str], named: &[&str]) {
    let arguments = up_arguments(rig, more);
    let ended = tidings_with(
        environment,
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    ended.assert_error_names(named);
}

#[tokio::test]
async fn an_unwritable_data_folder_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let file = rig.folder().join("file");
    fs::write(&file, "a file").unwrap();
    for data in [
        file.as_path(),
        &file.join("below"),
        Path::new("/proc/tidings"),
        Path::new("/sys/tidings"),
    ] {
        assert_up_fails(&rig, &[], &["--data", text(data)], &["--data", text(data)]).await;
    }
}

/// A disk of 8 MiB, unmounted when dropped.
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
async fn a_full_disk_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let small = rig.folder().join("small");
    fs::create_dir(&small).unwrap();
    let Some(_mounted) = SmallDisk::mount(&small) else {
        println!("skipped: only root can mount a small disk");
        return;
    };
    let data = small.join("data");
    assert_up_fails(
        &rig,
        &[],
        &["--data", text(&data)],
        &["--data", text(&data), "64 MiB"],
    )
    .await;
    fs::write(small.join("filler"), vec![0; 16 << 20]).unwrap_err();
    let _ = fs::remove_dir_all(&data);
    assert_up_fails(
        &rig,
        &[],
        &["--data", text(&data)],
        &["--data", text(&data)],
    )
    .await;
}

#[tokio::test]
async fn a_data_folder_in_use_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let first = rig.run(Role::up_with_own_server()).await;
    assert_up_fails(
        &rig,
        &[],
        &[],
        &[text(&rig.folder().join("data")), "`tidings up`", "--data"],
    )
    .await;
    assert_eq!(first.readiness().await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let nats = rig.url();
    for flag in ["--listen", "--admin"] {
        assert_up_fails(&rig, &[], &[flag, &address], &[flag, &address]).await;
        assert_up_fails(
            &rig,
            &[],
            &["--nats", nats, flag, &address],
            &[flag, &address],
        )
        .await;
        assert!(
            !rig.folder().join("data/nats.json").exists(),
            "its nats-server has ended"
        );
    }
}

#[tokio::test]
async fn missing_rules_and_a_missing_nats_url_are_reported() {
    let rig = Rig::start(TIDINGS).await;
    let missing = rig.folder().join("missing");
    assert_up_fails(
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
    .assert_error_names(&["--rules"]);
    tidings(&[
        "ingest",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ])
    .await
    .assert_error_names(&["--nats"]);
}

#[tokio::test]
async fn missing_rules_are_found_before_anything_starts() {
    let rig = Rig::start(TIDINGS).await;
    let data = rig.folder().join("unused");
    let missing = rig.folder().join("missing");
    for rules in [&[][..], &["--rules", text(&missing)]] {
        let ended = tidings(&[&["up", "--data", text(&data)], rules].concat()).await;
        ended.assert_error_names(&["--rules"]);
        assert_eq!(ended.stderr.lines().count(), 1, "only the error: {ended:?}");
        assert!(!data.exists(), "no data folder is left");
    }
}

#[tokio::test]
async fn a_missing_or_old_nats_server_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let missing = rig.folder().join("no-nats-server");
    assert_up_fails(
        &rig,
        &[("NATS_SERVER", text(&missing))],
        &[],
        &["NATS_SERVER", text(&missing), "2.12"],
    )
    .await;
    assert_up_fails(
        &rig,
        &[],
        &["--nats-server", text(&missing)],
        &["--nats-server", text(&missing), "2.12"],
    )
    .await;

    let old = rig.folder().join("old-nats-server");
    for (output, named) in [
        ("nats-server: v2.11.9", "2.11"),
        ("something else", "something else"),
    ] {
        fs::write(&old, format!("#!/bin/sh\necho '{output}'\n")).unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        assert_up_fails(
            &rig,
            &[("NATS_SERVER", text(&old))],
            &[],
            &[text(&old), named],
        )
        .await;
    }
}

#[tokio::test]
async fn a_member_whose_kubeconfig_cannot_be_read_is_reported() {
    let rig = Rig::start(TIDINGS).await;
    let folder = text(rig.rules().folder()).to_owned();
    let file = rig.folder().join("eu.kubeconfig");
    let member = format!("cluster=eu:{}", text(&file));
    let named = ["rules.sources: cluster=eu", text(&file)];
    let arguments = ["--rules", &folder, "--rules", &member];
    assert_up_fails(&rig, &[], &arguments, &named).await;
    fs::write(&file, "apiVersion: v1\nkind: Config\n").unwrap();
    assert_up_fails(&rig, &[], &arguments, &named).await;

    for (second, named) in [
        ("cluster=eu", "cluster=NAME:FILE"),
        ("cluster=default:eu.kubeconfig", "the hub's own cluster"),
        (folder.as_str(), "more than one folder"),
    ] {
        let arguments = ["--rules", &folder, "--rules", second];
        assert_up_fails(&rig, &[], &arguments, &["rules.sources", named]).await;
    }
}
