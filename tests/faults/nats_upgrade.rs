//! A cluster of nats-servers that is upgraded while events arrive.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tidings_rig::{NatsServer, Received, Rig, event, post_during};

use crate::TIDINGS;
use crate::cluster::{receives_all, replicas};
use crate::killing::IN_FLIGHT;

const RATE: u32 = 50;

/// The executables before and after the upgrade: of the oldest version that can be used, and of the
/// newest one.
fn executables() -> (PathBuf, PathBuf) {
    let older = NatsServer::previous_executable();
    let older = older.expect("an older nats-server can be installed; see the output above");
    (older, NatsServer::executable().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: run `make test-upgrade`"]
async fn a_rolling_upgrade_of_the_servers_under_load_loses_nothing() {
    let (older, newer) = executables();
    let (rig, mut cluster) = Rig::start_on_cluster_of(TIDINGS, &older).await;
    let (receiver, roles) = replicas(&rig).await;
    let before = cluster.versions().await;

    let named = |number: u32| event(&number.to_string());
    let upgrade = cluster.replace_each(&newer);
    let posted = post_during(&roles[0].address(), RATE, named, upgrade).await;

    let after = cluster.versions().await;
    let received = receives_all(&receiver, &posted).await;
    rig.drained().await;
    assert!(rig.dead_letters().await.is_empty());
    for role in &roles {
        role.ready().await;
    }
    // Another leader of a consumer may repeat what was in progress: the same delivery again, which
    // its id shows.
    let accepted = receiver.accepted();
    let id = |it: &Received| {
        (
            it.message(),
            it.header("idempotency-key").map(str::to_owned),
        )
    };
    let deliveries: BTreeSet<_> = accepted.iter().map(id).collect();
    let twice = received.values().filter(|(count, _)| *count > 1).count();
    println!(
        "{} events while three servers were replaced, {before:?} by {after:?}; \
         {twice} were received twice",
        posted.len()
    );
    // Ingest may store the copy of a sender that got no answer, if the server does not answer it.
    let copies = roles[0].log_events("later-events-not-read").len();
    assert!(
        deliveries.len() <= posted.len() + copies,
        "one delivery of each event, and of {copies} copies: {} of {}",
        deliveries.len(),
        posted.len()
    );
    assert!(
        accepted.len() <= deliveries.len() + 3 * IN_FLIGHT,
        "at most what was in progress is repeated: {} of {}",
        accepted.len(),
        posted.len()
    );
}
