//! A cluster of three nats-servers whose leaders are killed repeatedly.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_rig::{
    NatsCluster, Posted, Process, Receiver, Rig, Role, alert, event, eventually_within, percentile,
    post_steadily, provider,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::TIDINGS;

const RATE: u32 = 200;
const LENGTH: Duration = Duration::from_secs(120);
const KILL_EVERY: Duration = Duration::from_secs(20);
/// How long a killed server is down.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// The time limit for deliveries after the last event.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_leader_every_20_seconds_for_two_minutes_loses_nothing() {
    let (rig, mut cluster) = Rig::start_on_cluster(TIDINGS).await;
    let (receiver, roles) = replicas(&rig).await;

    let ingest = roles[0].address();
    let posting = tokio::spawn(async move {
        post_steadily(&ingest, RATE, LENGTH, |number| event(&number.to_string())).await
    });
    let mut killed = Vec::new();
    let mut next = Instant::now() + KILL_EVERY;
    while !posting.is_finished() {
        tokio::time::sleep_until(next).await;
        next += KILL_EVERY;
        let stream = ["EVENTS", "DELIVERIES"][killed.len() % 2];
        killed.push(cluster.kill_leader_of(stream).await);
        tokio::time::sleep(DOWN_FOR).await;
        cluster.restart().await;
        cluster.replicas_are_current(stream).await;
    }
    let posted = posting.await.expect("posting does not panic");
    assert_eq!(posted.len(), (RATE * 120) as usize);
    assert!(
        killed.len() >= 2,
        "both streams lost a leader while events arrived: {killed:?}"
    );

    let received = receives_all(&receiver, &posted).await;
    assert!(rig.dead_letters().await.is_empty());
    print_latencies(&posted, &received, killed.len());
}

/// One ingest, two routers and two workers, and a receiver of all events.
pub async fn replicas(rig: &Rig) -> (Receiver, [Process; 5]) {
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let roles = rig.run_all([
        Role::ingest(),
        Role::router(),
        Role::router(),
        Role::worker(),
        Role::worker(),
    ]);
    (receiver, roles.await)
}

/// One process of each role on a cluster, and a sender of 50 events a second for 20 s.
struct UnderLoad {
    cluster: NatsCluster,
    roles: [Process; 3],
    receiver: Receiver,
    posting: JoinHandle<Vec<Posted>>,
    /// Holds the rules and the folder of all processes.
    _rig: Rig,
}

impl UnderLoad {
    async fn start() -> Self {
        let (rig, cluster) = Rig::start_on_cluster(TIDINGS).await;
        let receiver = Receiver::start().await;
        rig.rules().put([
            provider("hook", receiver.url()).that_retries_soon(),
            alert("all", "hook"),
        ]);
        let roles = rig
            .run_all([Role::ingest(), Role::router(), Role::worker()])
            .await;
        let (ingest, length) = (roles[0].address(), Duration::from_secs(20));
        let posting = tokio::spawn(async move {
            post_steadily(&ingest, 50, length, |number| event(&number.to_string())).await
        });
        receiver.receives(100).await;
        Self {
            cluster,
            roles,
            receiver,
            posting,
            _rig: rig,
        }
    }

    async fn loses_nothing(self) {
        let posted = self.posting.await.expect("posting does not panic");
        receives_all(&self.receiver, &posted).await;
        for role in &self.roles {
            role.ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_whole_cluster_loses_nothing() {
    let mut load = UnderLoad::start().await;
    load.cluster.kill_all().await;
    load.cluster.restart().await;
    load.loses_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_for_ten_seconds_loses_nothing() {
    let load = UnderLoad::start().await;
    load.cluster
        .freeze_leader_of("EVENTS", Duration::from_secs(10))
        .await
        .expect("the stream has a leader");
    load.loses_nothing().await;
}

pub async fn receives_all(
    receiver: &Receiver,
    posted: &[Posted],
) -> BTreeMap<String, (usize, Instant)> {
    let mut missing = Vec::new();
    eventually_within(PATIENCE, "as many requests as events", async || {
        (receiver.count() >= posted.len()).then_some(())
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let received = receiver.tally();
        missing.clear();
        missing.extend(
            posted
                .iter()
                .filter(|posted| !received.contains_key(&posted.message))
                .map(|posted| &posted.message),
        );
        if missing.is_empty() {
            return received;
        }
        assert!(
            Instant::now() < deadline,
            "accepted, but never received: {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn print_latencies(
    posted: &[Posted],
    received: &BTreeMap<String, (usize, Instant)>,
    killed: usize,
) {
    let mut took: Vec<Duration> = posted
        .iter()
        .map(|posted| received[&posted.message].1 - posted.at)
        .collect();
    took.sort();
    let at = |percent: f64| percentile(&took, percent).unwrap_or_default();
    let twice = received.values().filter(|(count, _)| *count > 1).count();
    println!(
        "{} events at {RATE}/s while {killed} leaders were killed: \
         p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}; {twice} were received twice",
        took.len(),
        at(50.0),
        at(99.0),
        at(99.9),
        at(100.0)
    );
}
