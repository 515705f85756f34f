//! `examples/tap.py`: a consumer in another language.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidings_rig::{Rig, Role, event};
use tokio::process::Command;

use crate::TIDINGS;
use crate::command::Following;

/// The exit status of tools/python.sh without a Python with pip.
const NO_PYTHON: i32 = 3;

/// A folder with the imports of the example. Without Python the test is skipped, except in CI.
async fn imports(project: &Path) -> Option<PathBuf> {
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

#[tokio::test]
async fn the_example_in_python_prints_each_event() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(imports) = imports(project).await else {
        return;
    };
    let rig = Rig::start(TIDINGS).await;
    let up = rig
        .run(Role::up_with_own_server().args(["--cluster", "hub"]))
        .await;
    up.post(&event("before it starts")).await.unwrap();

    let mut command = Command::new("python3");
    command
        .arg(project.join("examples/tap.py"))
        .arg(rig.folder().join("data/nats.json"))
        .env("PYTHONPATH", imports);
    let mut tap = Following::start(command);

    assert_eq!(
        tap.next().await,
        "hub info Kustomization apps/apps: before it starts"
    );
    up.post(&event("while it runs")).await.unwrap();
    assert_eq!(
        tap.next().await,
        "hub info Kustomization apps/apps: while it runs"
    );
}
