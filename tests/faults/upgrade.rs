//! The last release and this one: a rolling upgrade and the way back while events arrive, and one
//! role of either beside all others of the other one. `make test-upgrade` runs them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidings_rig::{
    Forge, Process, Receiver, Reply, Rig, Role, alert, event, eventually, post_during, provider,
};
use tokio::process::Command;

use crate::TIDINGS;
use crate::cluster::receives_all;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
const RATE: u32 = 20;

/// The executable of the last release, which `tools/release.sh previous` builds. A variable that
/// begins with `TIDINGS_` would be a setting.
fn previous() -> PathBuf {
    let path = std::env::var_os("PREVIOUS_TIDINGS").map(PathBuf::from);
    let path = path.expect("PREVIOUS_TIDINGS is not set: run `make test-upgrade`");
    assert!(path.is_file(), "{} is no file", path.display());
    path
}

/// An event of a Kustomization for the commit.
fn reconciled(second: u32, succeeded: bool) -> Value {
    let mut event = event(&format!("{COMMIT} at {second}: {succeeded}"));
    event["timestamp"] = format!("2026-01-02T03:04:{second:02}Z").into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
    event["involvedObject"]["name"] = "states".into();
    if !succeeded {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

/// A bus with a chat that fails now and then, and a forge.
struct Fleet {
    rig: Rig,
    receiver: Receiver,
    forge: Forge,
}

impl Fleet {
    async fn start() -> Self {
        let (rig, forge) = (Rig::start(TIDINGS).await, Forge::start().await);
        let receiver = Receiver::start().await;
        // Every third attempt is parked, so that either version reads what the other one parked.
        let replies = [Reply::Status(200), Reply::Status(200), Reply::Status(503)];
        receiver.answer_in_turn(replies);
        Forge::put_secret(rig.rules());
        rig.rules().put([
            provider("hook", receiver.url()).that_retries_soon(),
            forge.provider("github"),
            alert("all", "hook").with("exclusionList", json!([COMMIT])),
            alert("commits", "forge").with("inclusionList", json!([COMMIT])),
        ]);
        Self {
            rig,
            receiver,
            forge,
        }
    }

    async fn run<const N: usize>(&self, roles: [(Role, &Path); N]) -> [Process; N] {
        let processes = roles.map(|(role, executable)| self.rig.spawn_of(executable, role));
        for process in &processes {
            process.ready().await;
        }
        processes
    }

    /// Posts a state, and waits until the forge has these, oldest first.
    async fn states(&self, ingest: &Process, event: Value, expected: &[&str]) {
        eventually("the state is accepted", async || {
            let answer = ingest.post(&event).await.ok()?;
            matches!(answer.status, 202 | 429).then_some(())
        })
        .await;
        eventually(&format!("the forge has {expected:?}"), async || {
            (self.forge.states() == expected).then_some(())
        })
        .await;
    }

    /// Runs `tidings streams apply` of a version.
    async fn apply_streams(&self, executable: &Path) {
        let mut command = Command::new(executable);
        command.args(["streams", "apply", "--nats", self.rig.url()]);
        let output = command.output().await.expect("the command runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// Waits until everything that was posted is received, and nothing is left or dead.
    async fn balances(&self, posted: &[tidings_rig::Posted]) -> usize {
        let received = receives_all(&self.receiver, posted).await;
        self.rig.drained().await;
        assert!(self.rig.dead_letters().await.is_empty());
        received.values().filter(|(count, _)| *count > 1).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the last release: run `make test-upgrade`"]
async fn a_rolling_upgrade_from_the_last_release_and_back_under_load_loses_nothing() {
    let previous = previous();
    let fleet = Fleet::start().await;
    // In the order of docs/upgrade.md: workers, routers, ingest.
    let mut roles = fleet
        .run([
            (Role::worker(), &previous),
            (Role::worker(), &previous),
            (Role::router(), &previous),
            (Role::router(), &previous),
            (Role::ingest(), &previous),
        ])
        .await;
    let address = roles[4].address();

    let changes = async {
        fleet
            .states(&roles[4], reconciled(1, false), &["failure"])
            .await;
        fleet.apply_streams(Path::new(TIDINGS)).await;
        for role in &mut roles {
            role.replace(Path::new(TIDINGS)).await;
        }
        let states = ["failure", "success"];
        fleet.states(&roles[4], reconciled(10, true), &states).await;
        for role in roles.iter_mut().rev() {
            role.replace(&previous).await;
        }
        fleet.apply_streams(&previous).await;
        let states = ["failure", "success", "failure"];
        fleet
            .states(&roles[4], reconciled(20, false), &states)
            .await;
    };
    let posted = post_during(&address, RATE, |number| event(&number.to_string()), changes).await;

    let twice = fleet.balances(&posted).await;
    println!(
        "{} events while five processes were upgraded and downgraded; {twice} were received twice",
        posted.len()
    );
    // They end cleanly, so nothing that they did is repeated.
    assert_eq!(twice, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the last release: run `make test-upgrade`"]
async fn each_role_of_one_release_works_beside_all_others_of_the_other_one() {
    let previous = previous();
    let current = PathBuf::from(TIDINGS);
    for (many, one) in [(&previous, &current), (&current, &previous)] {
        for odd in 0..3 {
            works_beside(many, one, odd).await;
        }
    }
}

/// Runs ingest, router and worker of a version, one of them of another one.
async fn works_beside(many: &Path, one: &Path, odd: usize) {
    let fleet = Fleet::start().await;
    fleet.apply_streams(many).await;
    let version = |role| if role == odd { one } else { many };
    let roles = fleet
        .run([
            (Role::ingest(), version(0)),
            (Role::router(), version(1)),
            (Role::worker(), version(2)),
        ])
        .await;

    let named = |number: u32| event(&number.to_string());
    let changes = async {
        fleet
            .states(&roles[0], reconciled(1, false), &["failure"])
            .await;
        let states = ["failure", "success"];
        fleet.states(&roles[0], reconciled(10, true), &states).await;
        fleet.receiver.receives(100).await;
    };
    let posted = post_during(&roles[0].address(), RATE, named, changes).await;

    assert_eq!(fleet.balances(&posted).await, 0);
    for executable in [many, one] {
        let mut status = Command::new(executable);
        status.args(["status", "--nats", fleet.rig.url()]);
        let output = status.output().await.expect("the command runs");
        assert!(output.status.success(), "{output:?}");
    }
}
