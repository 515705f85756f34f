//! `examples/tap.py`: a consumer in another language.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidings_core::{Event, Message as _};
use tidings_rig::{Rig, Role, event};
use tokio::process::Command;

use crate::TIDINGS;
use crate::command::Following;

/// The exit status of tools/python.sh without a Python with pip.
const NO_PYTHON: i32 = 3;

/// A folder with the imports of the example. Without Python the test is skipped, except in CI.
pub async fn imports(project: &Path) -> Option<PathBuf> {
    let found = Command::new(project.join("tools/python.sh"))
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    if found.status.code() == Some(NO_PYTHON) && var_os("CI").is_none() {
        println!("skipped: examples/tap.py needs a Python with pip");
        return None;
    }
    assert!(
        found.status.success(),
        "the imports of the example cannot be installed; see above"
    );
    Some(String::from_utf8(found.stdout).unwrap().trim().into())
}

/// A name that is encoded and hashed in subjects.
fn hub() -> String {
    format!("hub.{}", "long".repeat(30))
}

#[tokio::test]
async fn the_example_in_python_prints_each_event() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(imports) = imports(project).await else {
        return;
    };
    let rig = Rig::start(TIDINGS).await;
    let up = rig
        .run(Role::up_with_own_server().args(["--cluster", &hub()]))
        .await;
    up.post(&event("before it starts")).await.unwrap();
    publish_forged(&rig).await;

    let mut command = Command::new("python3");
    command
        .arg(project.join("examples/tap.py"))
        .arg(rig.folder().join("data/nats.json"))
        .env("PYTHONPATH", imports);
    let mut tap = Following::start(command);

    assert_eq!(
        tap.next().await,
        format!("{} info Kustomization apps/apps: before it starts", hub())
    );
    up.post(&event("while it runs")).await.unwrap();
    assert_eq!(
        tap.next().await,
        format!("{} info Kustomization apps/apps: while it runs", hub())
    );
}

/// Publishes events of another cluster than that of their subject.
async fn publish_forged(rig: &Rig) {
    let contact = std::fs::read(rig.folder().join("data/nats.json")).unwrap();
    let contact: serde_json::Value = serde_json::from_slice(&contact).unwrap();
    let token = contact["token"].as_str().unwrap().to_owned();
    let client = async_nats::ConnectOptions::with_token(token)
        .connect(contact["url"].as_str().unwrap())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for cluster in ["hub", "long".repeat(50).as_str(), "no.such"] {
        let forged = Event {
            id: "forged".to_owned(),
            cluster: cluster.to_owned(),
            ..Event::default()
        };
        let subject = "events.member.apps.Kustomization.info";
        let published = jetstream.publish(subject, forged.encode_to_vec().into());
        published.await.unwrap().await.unwrap();
    }
}

/// The first command in the description of the example.
fn documented_command(project: &Path) -> String {
    let example = std::fs::read_to_string(project.join("examples/tap.py")).unwrap();
    let command = example
        .lines()
        .map(str::trim)
        .find(|line| line.contains("pip install"));
    command.expect("the example says how to install").to_owned()
}

#[tokio::test]
async fn the_requirements_of_the_example_install_by_the_documented_command() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(project.join("examples"), folder.path().join("examples")).unwrap();
    let command = documented_command(project).replacen("python ", "python3 ", 1);
    let installed = Command::new("sh")
        .args([
            "-ec",
            &format!("{command}\npython -c 'import nats, google.protobuf, grpc_tools'"),
        ])
        .current_dir(folder.path())
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&installed.stderr);
    let is_offline = ["NewConnectionError", "NameResolutionError", "not found"]
        .iter()
        .any(|text| errors.contains(text));
    if !installed.status.success() && is_offline && var_os("CI").is_none() {
        println!("skipped: the packages cannot be downloaded, or Python is missing");
        return;
    }
    assert!(installed.status.success(), "{errors}");
}
