//! Deliveries that come again and again: what they did to the process that held them is counted by the bus.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt;
use tidings_core::stream::{DELIVERIES, worker_consumer};
use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Hands the only delivery out so many times, as to workers that end before they settle it.
async fn hand_out(rig: &Rig, times: usize) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream is there", async || jetstream.get_stream(DELIVERIES).await.ok()).await;
    let config = worker_consumer("default", "generic");
    let name = config.durable_name.clone().expect("the workers' consumer is durable");
    let consumer: PullConsumer = stream.get_or_create_consumer(&name, config).await.expect("the server makes consumers");
    for _ in 0..times {
        let batch = consumer.batch().max_messages(1).expires(Duration::from_secs(20)).messages().await;
        let message = batch.expect("a pull begins").next().await.expect("the delivery is handed out").expect("it arrives");
        message.double_ack_with(AckKind::Nak(None)).await.expect("the server notes it");
    }
}

async fn after_hand_outs(times: usize) -> (Rig, Receiver) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest()).await;
    ingest.post(&event("suspect")).await.expect("ingest answers");
    hand_out(&rig, times).await;
    let _worker = rig.run(Role::worker()).await;
    rig.drained().await;
    (rig, receiver)
}

#[tokio::test]
async fn a_delivery_that_ended_five_processes_alone_is_a_dead_letter_and_is_not_tried_again() {
    let (rig, receiver) = after_hand_outs(6).await;
    let letter = rig.dead_letters().await.pop().expect("it is kept as a dead letter");
    assert_eq!(letter.reason, "crashed");
    assert!(receiver.received().is_empty(), "it may be what ends the process");
}

#[tokio::test]
async fn a_delivery_that_came_again_less_often_gets_its_attempt() {
    let (rig, receiver) = after_hand_outs(5).await;
    receiver.accepts("suspect").await;
    assert!(rig.dead_letters().await.is_empty());
}
