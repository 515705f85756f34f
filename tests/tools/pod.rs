//! Defaults that differ in a pod, and what only some roles export.

use std::process::Stdio;

use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, free_port, provider};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::TIDINGS;

/// What Kubernetes sets in every container.
const IN_POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");

/// The line of the log that names the admin address of an ingest without `--admin`: it listens
/// there, or another process has the port.
async fn admin_line(host: Option<&str>) -> String {
    let mut command = Command::new(TIDINGS);
    command
        .args(["ingest", "--nats", "nats://127.0.0.1:1"])
        .args(["--listen", &format!("127.0.0.1:{}", free_port())])
        .env_remove(IN_POD.0)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(host) = host {
        command.env(IN_POD.0, host);
    }
    let mut process = command.spawn().expect("the executable can be started");
    let stderr = process.stderr.take().expect("standard error is piped");
    let mut lines = BufReader::new(stderr).lines();
    let line = timeout(tidings_rig::PATIENCE, async {
        loop {
            let line = lines.next_line().await.expect("the log is text");
            let line = line.expect("the log names the admin address");
            if line.contains(":8080") {
                return line;
            }
        }
    });
    line.await.expect("the process starts in time")
}

#[tokio::test]
async fn the_admin_address_is_on_every_interface_only_in_a_pod() {
    for (host, expected) in [
        (None, "127.0.0.1:8080"),
        (Some("10.96.0.1"), "0.0.0.0:8080"),
        (Some("fd00:10:96::1"), "[::]:8080"),
    ] {
        let line = admin_line(host).await;
        assert!(line.contains(expected), "{host:?}: {line}");
    }
}

#[tokio::test]
async fn the_demo_receiver_can_be_called_in_a_pod_and_other_local_ports_cannot() {
    let rig = Rig::start(TIDINGS).await;
    let sidecar = Receiver::start().await;
    rig.rules().put([
        provider("screen", "http://127.0.0.1:9095/"),
        provider("sidecar", sidecar.url()),
    ]);
    rig.rules()
        .put([alert("to-screen", "screen"), alert("to-sidecar", "sidecar")]);
    let up = rig
        .run(Role::up().args(["--demo"]).env(IN_POD.0, IN_POD.1))
        .await;
    up.post(&event("in a pod")).await.unwrap();

    eventually("one is delivered, the other is refused", async || {
        let outcomes = rig.outcomes().await;
        let ended: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| {
                let attempt = outcome.attempt.as_ref()?;
                Some((
                    outcome.provider.as_ref()?.name.as_str(),
                    attempt.outcome.as_str(),
                ))
            })
            .collect();
        let wanted = [("screen", "delivered"), ("sidecar", "dead")];
        wanted
            .iter()
            .all(|wanted| ended.contains(wanted))
            .then_some(())
    })
    .await;
    assert!(sidecar.received().is_empty());
}

#[tokio::test]
async fn only_roles_that_read_rules_say_whether_they_can() {
    let rig = Rig::start(TIDINGS).await;
    let [router, worker, ingest] = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    for role in [&router, &worker] {
        assert!(
            role.metrics()
                .await
                .contains("tidings_rules_source_connected 1")
        );
    }
    assert!(!ingest.metrics().await.contains("tidings_rules_"));
}
