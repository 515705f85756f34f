//! Three nats-servers, of which the leader is killed again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_rig::{
    NatsCluster, Posted, Process, Receiver, Rig, Role, alert, event, eventually_within,
    post_steadily, provider,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::TIDINGS;

const RATE: u32 = 200;
const LENGTH: Duration = Duration::from_secs(120);
const KILL_EVERY: Duration = Duration::from_secs(20);
/// A server that is killed is missed for so long before it comes back.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// After the last event, for what still waits.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_leader_is_killed_every_20_s_for_two_minutes_loses_nothing() {
    let (rig, mut cluster) = Rig::start_on_cluster(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let roles = rig
        .run_all([
            Role::ingest(),
            Role::router(),
            Role::router(),
            Role::worker(),
            Role::worker(),
        ])
        .await;

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
        killed.extend(cluster.kill_leader_of(stream).await);
        tokio::time::sleep(AWAY_FOR).await;
        cluster.restart().await;
        cluster.is_whole(stream).await;
    }
    let posted = posting.await.expect("posting does not panic");
    assert_eq!(posted.len(), (RATE * 120) as usize);
    assert!(
        killed.len() >= 4,
        "leaders were killed again and again: {killed:?}"
    );

    let arrived = all_arrive(&receiver, &posted).await;
    assert!(rig.dead_letters().await.is_empty());
    state_latencies(&posted, &arrived, killed.len());
}

/// One process of each role on a cluster, with 50 events a second for 20 s on their way to it.
struct UnderLoad {
    cluster: NatsCluster,
    roles: [Process; 3],
    receiver: Receiver,
    posting: JoinHandle<Vec<Posted>>,
    /// The rules, and the folder of everything.
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

    async fn loses_nothing_and_every_role_is_ready_again(self) {
        let posted = self.posting.await.expect("posting does not panic");
        all_arrive(&self.receiver, &posted).await;
        for role in &self.roles {
            role.ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_restarted_whole_loses_nothing_and_every_role_is_ready_again() {
    let mut bed = UnderLoad::start().await;
    bed.cluster.kill_all().await;
    bed.cluster.restart().await;
    bed.loses_nothing_and_every_role_is_ready_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_leader_stands_still_for_ten_seconds_loses_nothing_and_every_role_is_ready_again()
 {
    let bed = UnderLoad::start().await;
    bed.cluster
        .freeze_leader_of("EVENTS", Duration::from_secs(10))
        .await
        .expect("it had a leader");
    bed.loses_nothing_and_every_role_is_ready_again().await;
}

async fn all_arrive(receiver: &Receiver, posted: &[Posted]) -> BTreeMap<String, (usize, Instant)> {
    let mut missing = Vec::new();
    eventually_within(PATIENCE, "so many requests have come in", async || {
        (receiver.count() >= posted.len()).then_some(())
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let arrived = receiver.tally();
        missing.clear();
        missing.extend(
            posted
                .iter()
                .filter(|posted| !arrived.contains_key(&posted.message))
                .map(|posted| &posted.message),
        );
        if missing.is_empty() {
            return arrived;
        }
        assert!(
            Instant::now() < deadline,
            "accepted, but never received: {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn state_latencies(posted: &[Posted], arrived: &BTreeMap<String, (usize, Instant)>, killed: usize) {
    let mut took: Vec<Duration> = posted
        .iter()
        .map(|posted| arrived[&posted.message].1 - posted.at)
        .collect();
    took.sort();
    let quantile = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let twice = arrived.values().filter(|(count, _)| *count > 1).count();
    println!(
        "{} events at {RATE}/s while {killed} leaders were killed: p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}; {twice} came twice",
        took.len(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
}
