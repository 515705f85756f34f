//! A stream that has less room than is waiting in it.

use std::collections::BTreeSet;

use tidings_core::bus::streams::EVENTS;
use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Room for some 500 of the events below; a fifth of it is more than can be posted between two
/// looks at the stream.
const ROOM: i64 = 20_000_000;

async fn shrink_events(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("EVENTS is there", async || {
        jetstream.get_stream(EVENTS).await.ok()
    })
    .await;
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = ROOM;
    jetstream
        .update_stream(config)
        .await
        .expect("the server changes a stream's limit");
}

#[tokio::test]
async fn before_events_are_evicted_that_no_router_has_read_ingest_refuses_and_none_is_missed() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let mut router = rig.run(Role::router()).await;
    router.terminate().await;
    shrink_events(&rig).await;
    let ingest = rig.run(Role::ingest()).await;

    let (mut number, mut accepted) = (0, BTreeSet::new());
    eventually(
        "ingest refuses what would push out unread events",
        async || {
            number += 1;
            let message = format!("{number} {}", "x".repeat(40_000));
            let answer = ingest.post(&event(&message)).await.ok()?;
            if answer.status == 202 {
                accepted.insert(message);
            }
            (answer.status == 503 && answer.body.contains("evicted unread")).then_some(())
        },
    )
    .await;
    router.restart().await;
    let _worker = rig.run(Role::worker()).await;

    eventually("as many arrive as were accepted", async || {
        (receiver.count() >= accepted.len()).then_some(())
    })
    .await;
    eventually("every accepted event arrives", async || {
        let received = receiver.tally();
        accepted
            .iter()
            .all(|message| received.contains_key(message))
            .then_some(())
    })
    .await;
    assert!(
        accepted.len() > 100,
        "there was room for many: {}",
        accepted.len()
    );
    assert_eq!(
        router
            .metric("tidings_router_lost_to_retention_total", "")
            .await,
        0.0
    );
    eventually("ingest takes events again", async || {
        number += 1;
        (ingest.post(&event(&number.to_string())).await.ok()?.status == 202).then_some(())
    })
    .await;
}
