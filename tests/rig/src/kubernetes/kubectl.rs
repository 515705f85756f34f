//! Runs kubectl.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The result of one kubectl command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubectlOutput {
    /// Whether its exit status was 0.
    pub success: bool,
    /// Its standard output.
    pub output: String,
    /// Its standard error: errors and warnings.
    pub errors: String,
}

impl KubectlOutput {
    /// The output of a command that must succeed.
    ///
    /// # Panics
    /// The command failed.
    pub fn expect_success(self) -> String {
        assert!(
            self.success,
            "kubectl failed: {}{}",
            self.output, self.errors
        );
        self.output
    }
}

/// Runs kubectl with a kubeconfig and this standard input.
pub async fn kubectl(
    executable: &Path,
    kubeconfig: &Path,
    cache: &Path,
    arguments: &[&str],
    input: &str,
) -> KubectlOutput {
    let mut command = Command::new(executable);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", cache);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("kubectl can be started");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // kubectl may end before it has read all input.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("kubectl ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    KubectlOutput {
        success: output.status.success(),
        output: text(output.stdout),
        errors: text(output.stderr),
    }
}
