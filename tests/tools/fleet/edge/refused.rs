//! Messages on the server of an edge that are no events of its ingest.

use serde_json::Value;
use tidings_rig::eventually;

use super::{Site, numbered, post};

#[tokio::test]
async fn a_message_that_is_no_event_is_counted_and_stops_nothing() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 2)).await;
    let contact = std::fs::read_to_string(site.data.join("nats.json")).unwrap();
    let contact: Value = serde_json::from_str(&contact).unwrap();
    let [url, token] = ["url", "token"].map(|key| contact[key].as_str().unwrap().to_owned());
    let client = async_nats::ConnectOptions::with_token(token);
    let client = client.connect(url).await.unwrap();
    let streams = async_nats::jetstream::new(client);
    let sent = streams.publish("events.other.a.b.c", "no event".into());
    sent.await.unwrap().await.unwrap();
    posted.extend(post(&edge, numbered("after", 2)).await);

    site.stores(&posted).await;
    edge.logs("edge-event-refused").await;
    eventually("it is counted, and nothing waits", async || {
        let waiting = edge.metric("tidings_edge_events_waiting", "").await;
        let refused = edge.metric("tidings_edge_events_total", "outcome=\"refused\"");
        (refused.await == 1.0 && waiting == 0.0).then_some(())
    })
    .await;
}
