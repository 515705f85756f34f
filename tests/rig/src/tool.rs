//! Programs that a script of the project finds or installs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The exit status of a script that cannot install its program on this machine.
const CANNOT: i32 = 3;

/// The path that a script of `tools/` prints, such as `nats-cli.sh` or `deploy-tool.sh prometheus`.
/// `None` if this machine cannot install the program; in CI that is an error.
///
/// # Panics
/// The script fails.
pub fn tool(script: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    let mut words = script.split(' ');
    let program = words.next().map(|name| tools.join(name))?;
    let found = Command::new(program)
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .expect("the script can be run");
    if found.status.code() == Some(CANNOT) && std::env::var_os("CI").is_none() {
        return None;
    }
    assert!(
        found.status.success(),
        "{script} finds no program; see the output above"
    );
    Some(String::from_utf8_lossy(&found.stdout).trim().into())
}
