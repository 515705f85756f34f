//! The node that tools/e2e.sh booted, and commands on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_rig::eventually_within;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a change of pods may take. Images start slowly on a busy machine.
pub const CHANGE: Duration = Duration::from_secs(300);

/// The address of the host for pods; see tools/e2e/addresses.sh.
pub const HOST: &str = "10.209.0.1";

/// A file or folder of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A variable that tools/e2e.sh sets.
pub fn variable(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run `make e2e`"))
        .into()
}

/// The standard output of a program that must succeed.
pub async fn output_of(program: &Path, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input).await;
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

async fn run(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // A program may end before it has read all input.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.expect("the program ends")
}

/// The output of a kubectl command that must succeed.
pub async fn kubectl(arguments: &[&str]) -> String {
    kubectl_with(arguments, "").await
}

/// Applies objects.
pub async fn apply(objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let arguments = ["apply", "--server-side", "--filename", "-"];
    kubectl_with(&arguments, &list.to_string()).await;
}

async fn kubectl_with(arguments: &[&str], input: &str) -> String {
    output_of(&variable("BIN").join("kubectl"), arguments, input).await
}

/// An object or a list of objects.
pub async fn get(arguments: &[&str]) -> Value {
    let printed = kubectl(&[&["get", "--output=json"], arguments].concat()).await;
    serde_json::from_str(&printed).expect("kubectl prints JSON")
}

/// Kills the first process of a container, as the kernel does when memory runs out, and waits until
/// the kubelet has restarted it.
pub async fn kill_container(namespace: &str, pod: &str) {
    let status = async || {
        let pod = get(&["pod", pod, "--namespace", namespace]).await;
        pod["status"]["containerStatuses"][0].clone()
    };
    let before = status().await;
    let id = before["containerID"].as_str();
    let id = id.and_then(|id| id.strip_prefix("containerd://"));
    let socket = variable("FOLDER").join("containerd.sock");
    let address = format!("--address={}", socket.display());
    let kill = ["--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL"];
    let arguments = [&[&*address][..], &kill, &[id.expect("the container runs")]].concat();
    output_of(Path::new("ctr"), &arguments, "").await;
    eventually_within(CHANGE, "the kubelet restarts the container", async || {
        (status().await["restartCount"] != before["restartCount"]).then_some(())
    })
    .await;
}

/// Creates a namespace that enforces Pod Security `restricted`.
pub async fn restricted_namespace(name: &str) {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let metadata = json!({"name": name, "labels": labels});
    apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})]).await;
}

/// Creates a Secret in a restricted namespace.
pub async fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) {
    restricted_namespace(namespace).await;
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    let metadata = json!({"name": name, "namespace": namespace});
    apply(&[json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": data,
    })])
    .await;
}

/// Creates volumes on the disk of the node. Claims without a class get them.
pub async fn volumes(prefix: &str, count: usize) {
    let volume = |number: usize| {
        let name = format!("{prefix}-{number}");
        let path = variable("FOLDER").join("volumes").join(&name);
        std::fs::create_dir_all(&path).expect("the folder of the node is writable");
        let on_node =
            json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}]);
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": path},
                "nodeAffinity": {
                    "required": {"nodeSelectorTerms": [{"matchExpressions": on_node}]},
                },
            },
        })
    };
    apply(&(0..count).map(volume).collect::<Vec<_>>()).await;
}
