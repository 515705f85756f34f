//! Commit statuses: the newest state of a key wins, and an unchanged one costs no call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tidings_rig::{Manifest, Process, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

/// A GitHub Enterprise with one repository and nothing in it.
#[derive(Clone, Default)]
struct Forge {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Default)]
struct Calls {
    reads: usize,
    /// Commit and state, in the order of their receipt.
    writes: Vec<(String, String)>,
    is_away: bool,
    answers_after: Duration,
}

impl Forge {
    /// Starts it; gives the repository's address too.
    async fn start() -> (Self, String) {
        let forge = Self::default();
        let router = Router::new()
            .route("/api/v3/repos/org/repo/commits/{commit}/statuses", get(read))
            .route("/api/v3/repos/org/repo/statuses/{commit}", post(write))
            .with_state(forge.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has free ports");
        let address = format!("http://{}/org/repo", listener.local_addr().expect("a listener has an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (forge, address)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self) -> Vec<(String, String)> {
        self.calls().writes.clone()
    }

    fn states(&self) -> Vec<String> {
        self.writes().into_iter().map(|(_, state)| state).collect()
    }
}

async fn read(State(forge): State<Forge>) -> Result<String, StatusCode> {
    let mut calls = forge.calls();
    calls.reads += 1;
    if calls.is_away { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok("[]".to_owned()) }
}

async fn write(State(forge): State<Forge>, Path(commit): Path<String>, body: String) -> StatusCode {
    let body: Value = serde_json::from_str(&body).expect("a status is JSON");
    let state = body["state"].as_str().expect("a status has a state").to_owned();
    let wait = {
        let mut calls = forge.calls();
        if calls.is_away {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        calls.writes.push((commit, state));
        calls.answers_after
    };
    tokio::time::sleep(wait).await;
    StatusCode::CREATED
}

fn github(address: &str) -> Manifest {
    provider("forge", address).with("type", json!("github")).with("secretRef", json!({"name": "forge"})).that_retries_soon()
}

async fn rig(address: &str) -> Rig {
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([github(address), alert("commits", "forge")]);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: forge, namespace: apps}\nstringData: {token: hidden-token}\n";
    rig.rules().put_text("secret.yaml", secret);
    rig
}

/// What a Kustomization came to at a commit, so many seconds into an hour.
fn reconciled(commit: &str, second: u32, succeeded: bool) -> Value {
    let mut event = event(&format!("reconciled at {second}"));
    event["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
    event["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}")});
    if !succeeded {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

async fn post_all(process: &Process, events: impl IntoIterator<Item = Value>) {
    for event in events {
        assert_eq!(process.post(&event).await.expect("ingest answers").status, 202);
    }
}

#[tokio::test]
async fn an_unchanged_status_costs_no_call_and_every_change_costs_one() {
    let (forge, address) = Forge::start().await;
    let rig = rig(&address).await;
    let up = rig.run(Role::up()).await;

    for (first, succeeded) in [(0, true), (20, false), (40, true)] {
        post_all(&up, (first..first + 10).map(|second| reconciled(COMMIT, second, succeeded))).await;
        rig.drained().await;
    }

    assert_eq!(forge.states(), ["success", "failure", "success"]);
    assert_eq!(forge.calls().reads, 1, "what the forge holds is asked for once");
}

#[tokio::test]
async fn an_older_event_that_comes_later_is_superseded() {
    let (forge, address) = Forge::start().await;
    let rig = rig(&address).await;
    let up = rig.run(Role::up()).await;

    post_all(&up, [reconciled(COMMIT, 30, true)]).await;
    rig.drained().await;
    post_all(&up, [reconciled(COMMIT, 10, false)]).await;
    rig.drained().await;

    assert_eq!(forge.states(), ["success"]);
}

#[tokio::test]
async fn workers_that_race_for_one_key_leave_the_newest_state() {
    let (forge, address) = Forge::start().await;
    forge.calls().answers_after = Duration::from_millis(20);
    let rig = rig(&address).await;
    let (ingest, _router) = (rig.run(Role::ingest()), rig.run(Role::router()));
    let (_router, ingest) = (_router.await, ingest.await);
    let _workers = [rig.run(Role::worker()).await, rig.run(Role::worker()).await];

    // Every seventh second of a minute, which visits all 60 of them; the newest is a failure.
    let seconds = (0..60).map(|step| step * 7 % 60);
    post_all(&ingest, seconds.map(|second| reconciled(COMMIT, second, second % 2 == 0))).await;
    rig.drained().await;

    assert_eq!(forge.states().last().map(String::as_str), Some("failure"));
}

#[tokio::test]
async fn after_an_outage_each_commit_gets_one_write_with_its_newest_state() {
    let (forge, address) = Forge::start().await;
    forge.calls().is_away = true;
    let rig = rig(&address).await;
    let up = rig.run(Role::up()).await;

    let commits: Vec<String> = ["a", "b", "c"].iter().map(|digit| digit.repeat(40)).collect();
    for second in 0..20 {
        post_all(&up, commits.iter().map(|commit| reconciled(commit, second, second % 2 == 0))).await;
    }
    let jetstream = rig.jetstream().await;
    eventually("all that waits for a commit is one wake-up", async || {
        let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
        (stream.info().await.ok()?.state.messages == 3).then_some(())
    })
    .await;
    forge.calls().is_away = false;
    rig.drained().await;

    let mut writes = forge.writes();
    writes.sort();
    assert_eq!(writes, commits.into_iter().map(|commit| (commit, "failure".to_owned())).collect::<Vec<_>>());
}
