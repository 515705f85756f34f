//! kubectl, as users run it.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What kubectl said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether its exit status was 0.
    pub success: bool,
    /// What it printed.
    pub output: String,
    /// What it printed as errors and warnings.
    pub errors: String,
}

impl Said {
    /// The output of what must succeed.
    ///
    /// # Panics
    /// It did not.
    pub fn expect_success(self) -> String {
        assert!(
            self.success,
            "kubectl failed: {}{}",
            self.output, self.errors
        );
        self.output
    }
}

/// Runs it with a kubeconfig and something to read.
pub async fn kubectl(
    executable: &Path,
    kubeconfig: &Path,
    cache: &Path,
    arguments: &[&str],
    input: &str,
) -> Said {
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
    let mut stdin = child.stdin.take().expect("it is piped");
    // kubectl may end without reading all of it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("kubectl ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        success: output.status.success(),
        output: text(output.stdout),
        errors: text(output.stderr),
    }
}
