//! A stream that is too small for its unread events.

use std::collections::BTreeSet;

use tidings_core::bus::streams::EVENTS;
use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Enough for about 500 of the events below. A fifth of it is more than can be posted between two
/// checks of the stream.
const MAX_BYTES: i64 = 20_000_000;

async fn shrink_events(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("EVENTS exists", async || {
        jetstream.get_stream(EVENTS).await.ok()
    })
    .await;
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = MAX_BYTES;
    jetstream
        .update_stream(config)
        .await
        .expect("the limit can be changed");
}

#[tokio::test]
async fn ingest_rejects_events_before_unread_ones_are_evicted() {
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
        "ingest rejects events that would evict unread ones",
        async || {
            number += 1;
            let message = format!("{number} {}", "x".repeat(40_000));
            let answer = ingest.post(&event(&message)).await.ok()?;
            if answer.status == 202 {
                accepted.insert(message);
            }
            ((answer.status, answer.code().as_str()) == (503, "router-behind")).then_some(())
        },
    )
    .await;
    router.restart().await;
    let _worker = rig.run(Role::worker()).await;

    eventually("as many events are received as were accepted", async || {
        (receiver.count() >= accepted.len()).then_some(())
    })
    .await;
    eventually("every accepted event is received", async || {
        let received = receiver.tally();
        accepted
            .iter()
            .all(|message| received.contains_key(message))
            .then_some(())
    })
    .await;
    assert!(
        accepted.len() > 100,
        "more than 100 events fit: {}",
        accepted.len()
    );
    assert_eq!(
        router
            .metric("tidings_router_lost_to_retention_total", "")
            .await,
        0.0
    );
    eventually("ingest accepts events again", async || {
        number += 1;
        (ingest.post(&event(&number.to_string())).await.ok()?.status == 202).then_some(())
    })
    .await;
}
