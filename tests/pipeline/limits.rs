//! Limits that all workers share: a rate limit, and concurrency permits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tidings_rig::{
    Ledger, Process, Receiver, Reply, Rig, Role, alert, eventually_within, provider,
};

use crate::TIDINGS;

/// One ingest, one router and three workers.
struct Fleet {
    ingest: Process,
    _router: Process,
    workers: [Process; 3],
}

async fn fleet(rig: &Rig) -> Fleet {
    let [ingest, router] = rig.run_all([Role::ingest(), Role::router()]).await;
    let workers = three_workers(rig).await;
    Fleet {
        ingest,
        _router: router,
        workers,
    }
}

async fn three_workers(rig: &Rig) -> [Process; 3] {
    rig.run_all([Role::worker(), Role::worker(), Role::worker()])
        .await
}

/// Counts how often a delivery was parked under each subject.
async fn count_parked(rig: &Rig) -> Arc<Mutex<BTreeMap<String, usize>>> {
    let client = async_nats::connect(rig.url())
        .await
        .expect("the rig's nats-server accepts connections");
    let mut parked = client
        .subscribe("parked.>")
        .await
        .expect("the subscription is accepted");
    client.flush().await.expect("the server responds");
    let counts = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let counted = counts.clone();
    tokio::spawn(async move {
        let _client = client;
        while let Some(message) = parked.next().await {
            *counted
                .lock()
                .entry(message.subject.to_string())
                .or_default() += 1;
        }
    });
    counts
}

/// Asserts that three workers send `count` deliveries to one receiver at 100 per second at most.
async fn assert_at_most_100_per_second(count: usize) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("rateLimit", "100/1s"),
        alert("all", "hook"),
    ]);
    let (_router, ingest) = (rig.run(Role::router()).await, rig.run(Role::ingest()).await);
    let parked = count_parked(&rig).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&ingest, (0..count).map(|number| format!("event {number}")))
        .await;

    let _workers = three_workers(&rig).await;

    let patience = Duration::from_secs(60 + count as u64 / 50);
    let all = || async { Some(()).filter(|()| receiver.received().len() >= count) };
    eventually_within(patience, "everything is received", async || all().await).await;
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
    let mut times: Vec<_> = receiver
        .received()
        .iter()
        .map(|received| received.at)
        .collect();
    times.sort();
    let burst = 100;
    for (number, time) in times.iter().enumerate().skip(2 * burst) {
        let took = *time - times[number - 2 * burst];
        assert!(
            took >= Duration::from_secs(1),
            "{} requests within {took:?}, at {number}",
            2 * burst + 1
        );
    }
    let (took, least) = (
        times[count - 1] - times[0],
        Duration::from_millis(10) * (count - burst) as u32,
    );
    assert!(
        took + Duration::from_millis(500) >= least,
        "{count} requests within {took:?}, at least {least:?} expected"
    );
    let counts = parked.lock();
    let often: Vec<_> = counts.iter().filter(|(_, count)| **count > 2).collect();
    assert!(
        often.is_empty(),
        "each delivery is parked at most twice: {often:?}"
    );
    assert!(
        counts.len() > count / 4,
        "most deliveries are parked: {}",
        counts.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_share_a_rate_limit_and_park_each_delivery_at_most_twice() {
    assert_at_most_100_per_second(2000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes four minutes: `make soak` runs it"]
async fn three_workers_share_a_rate_limit_over_twenty_thousand_deliveries() {
    assert_at_most_100_per_second(20_000).await;
}

#[tokio::test]
async fn three_workers_never_exceed_max_in_flight() {
    const TAKES: Duration = Duration::from_millis(30);
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(TAKES));
    rig.rules().put([
        provider("hook", receiver.url()).with("maxInFlight", 1),
        alert("all", "hook"),
    ]);
    let fleet = fleet(&rig).await;
    let mut ledger = Ledger::default();

    for number in 0..100 {
        ledger.post(&fleet.ingest, &format!("event {number}")).await;
    }

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
    let mut times: Vec<_> = receiver
        .received()
        .iter()
        .map(|received| received.at)
        .collect();
    times.sort();
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(
            apart >= TAKES,
            "a call began {apart:?} after another that takes {TAKES:?}"
        );
    }
}

#[tokio::test]
async fn the_permit_of_a_killed_worker_is_released() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::Stall]).await;
    let hook = provider("hook", receiver.url())
        .with("maxInFlight", 1)
        .with("timeout", "1s");
    rig.rules()
        .put([hook.that_retries_soon(), alert("all", "hook")]);
    let mut fleet = fleet(&rig).await;
    let mut ledger = Ledger::default();
    ledger.post(&fleet.ingest, "first").await;
    receiver.receives(1).await;

    for worker in &mut fleet.workers {
        worker.kill().await;
    }
    fleet.workers[0].restart().await;
    ledger.post(&fleet.ingest, "second").await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{balance:?}");
}
