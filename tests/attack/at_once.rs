//! All attacks of one tenant and of hostile senders at once.

use std::time::Duration;

use tokio::time::sleep;

use tidings_rig::{Process, Receiver, Reply, Rig, Role, alert, event, eventually_within, provider};

use crate::{TIDINGS, hostile_rules, hostile_senders};

/// The memory limit of `tidings up` and its nats-server.
const MEMORY: u64 = 512 << 20;
/// The number of the neighbor's events.
const EVENTS: usize = 100;
/// A machine with two busy cores needs this for the neighbor's events.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbors_deliveries_arrive_while_a_tenant_and_senders_attack_within_512_mib() {
    attack(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes four minutes: `make attack` runs it"]
async fn a_long_attack_takes_no_more_memory_than_a_short_one() {
    attack(20).await;
}

async fn attack(rounds: usize) {
    let rig = Rig::start(TIDINGS).await;
    let (neighbor, hanging, forge) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    hanging.answer_with(Reply::Stall);
    rig.rules().put([
        provider("neighbor", neighbor.url()),
        alert("neighbor", "neighbor"),
    ]);
    let mut up = rig.spawn(Role::up_with_own_server().within_memory(MEMORY));
    up.ready().await;

    hostile_rules::put(&rig, hanging.url(), forge.url());
    let mut senders = hostile_senders::start(&up.address());
    attack_is_under_way(&up, &hanging).await;

    for round in 0..rounds {
        deliver(&up, &neighbor, round).await;
        sleep(Duration::from_secs(if round == 0 { 0 } else { 10 })).await;
    }
    assert!(senders.try_join_next().is_none(), "the senders go on");
    attack_is_under_way(&up, &hanging).await;
    assert!(up.is_running(), "the process did not die");
    println!(
        "the process and its children used {} MiB",
        up.peak_memory() >> 20
    );
    assert!(up.peak_memory() < MEMORY);
}

/// Waits until each attack shows: in its cost, or in the defense against it.
async fn attack_is_under_way(up: &Process, hanging: &Receiver) {
    for (attack, metric, labels) in [
        (
            "an expression grows",
            "tidings_expression_children_killed_total",
            "memory",
        ),
        (
            "patterns take long",
            "tidings_router_verdicts_total",
            "pattern-too-costly",
        ),
        ("large deliveries hang", "tidings_worker_memory_bytes", ""),
        ("senders stall", "tidings_ingest_body_bytes", ""),
    ] {
        eventually_within(PATIENCE, attack, async || {
            (up.metric(metric, labels).await > 0.0).then_some(())
        })
        .await;
    }
    let is_refused =
        |line: &String| line.contains("large-patterns") && line.contains("inclusionList");
    eventually_within(PATIENCE, "the large patterns are refused", async || {
        up.log().iter().any(is_refused).then_some(())
    })
    .await;
    hanging.receives(1).await;
}

/// Posts the neighbor's events of one round, and waits until they have arrived.
async fn deliver(up: &Process, neighbor: &Receiver, round: usize) {
    for number in 0..EVENTS {
        let message = format!("neighbor {round}.{number}");
        eventually_within(PATIENCE, &format!("{message} is stored"), async || {
            let response = up.post(&event(&message)).await.ok()?;
            matches!(response.status, 202 | 429).then_some(())
        })
        .await;
    }
    eventually_within(PATIENCE, "the neighbor's deliveries arrive", async || {
        (neighbor.tally().len() == (round + 1) * EVENTS).then_some(())
    })
    .await;
}
