//! A hub that has no room for events.

use std::time::Duration;

use async_nats::jetstream::{self, kv::Store};
use prost::Message as _;
use tidings_core::wire::EventsState;
use tidings_rig::{Process, eventually};
use tokio::time::sleep;

use super::{Site, numbered, post};

/// Reports the use of the hub's storage, in percent, as a router does.
pub(super) async fn report(hub: &Store, site: &Site, storage_used: u64) {
    let streams = site.fleet.streams().await;
    let mut events = streams.get_stream("EVENTS").await.unwrap();
    let info = events.info().await.unwrap();
    let created = info.created;
    let state = EventsState {
        created: Some(tidings_core::ProtoTimestamp {
            seconds: created.unix_timestamp(),
            nanos: i32::try_from(created.nanosecond()).unwrap(),
        }),
        last_sequence: info.state.last_sequence,
        storage_used,
        storage_limit: 100,
        ..EventsState::default()
    };
    let value = state.encode_to_vec().into();
    hub.put("events", value).await.unwrap();
}

async fn warns_of(edge: &Process, text: &str) {
    eventually(&format!("the edge warns of {text:?}"), async || {
        let ready = edge.readiness().await;
        assert_eq!(ready.status, 200, "{ready:?}");
        ready.body.contains(text).then_some(())
    })
    .await;
}

async fn takes_events(edge: &Process, expected: bool) {
    let value = f64::from(u8::from(expected));
    eventually(&format!("tidings_edge_hub_up is {value}"), async || {
        (edge.metric("tidings_edge_hub_up", "").await == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edge_keeps_its_events_while_the_hub_is_nearly_full() {
    let site = Site::new().await;
    let streams = site.fleet.streams().await;
    let hub = streams.get_key_value("hub").await.unwrap();
    report(&hub, &site, 10).await;
    site.answer_guests().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 3)).await;
    site.stores(&posted).await;
    takes_events(&edge, true).await;

    // Also an edge without events says so.
    report(&hub, &site, 85).await;
    takes_events(&edge, false).await;
    posted.extend(post(&edge, numbered("kept", 3)).await);
    warns_of(&edge, "nearly full").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(site.stored().await.len(), 3);

    report(&hub, &site, 10).await;
    site.stores(&posted).await;
    takes_events(&edge, true).await;
}

#[tokio::test]
async fn an_edge_whose_events_the_server_refuses_does_not_say_that_the_hub_takes_them() {
    let site = Site::new().await;
    let hub = site.fleet.hub().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 3)).await;
    site.stores(&posted).await;
    takes_events(&edge, true).await;

    // Full, though no report says so: nothing is discarded for a new event.
    drop(hub);
    site.answer_guests().await;
    let streams = site.fleet.streams().await;
    let mut events = streams.get_stream("EVENTS").await.unwrap();
    let former = events.info().await.unwrap().config.clone();
    let full = jetstream::stream::Config {
        discard: jetstream::stream::DiscardPolicy::New,
        max_messages: 3,
        ..former.clone()
    };
    streams.update_stream(&full).await.unwrap();
    posted.extend(post(&edge, numbered("kept", 3)).await);
    takes_events(&edge, false).await;
    // Each attempt begins with a new connection.
    for _ in 0..100 {
        assert_eq!(edge.metric("tidings_edge_hub_up", "").await, 0.0);
        sleep(Duration::from_millis(50)).await;
    }

    streams.update_stream(&former).await.unwrap();
    site.stores(&posted).await;
    takes_events(&edge, true).await;
}
