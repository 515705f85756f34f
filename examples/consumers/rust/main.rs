//! Prints the events of all clusters. An example of a durable consumer in Rust.
//!
//! ```sh
//! cargo run --example consumer -- NATS_URL NAME [START]
//! ```
//!
//! NAME is the durable consumer: a process that starts again continues after the last event that it
//! acknowledged. START is a time such as 2026-01-02T15:04:05Z, default: the oldest stored event. It
//! counts at the first start only. The variables NATS_CREDS and FILTER name a credentials file and
//! the events to read, as `tidings fleet add-tap` prints them.

use std::env::{args, var};
use std::error::Error;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, consumer};
use futures::TryStreamExt;
use tidings_proto::{Message, v1::Event};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "an example has no settings")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (url, name) = (args().nth(1), args().nth(2));
    let (Some(url), Some(name)) = (url, name) else {
        return Err("usage: consumer NATS_URL NAME [START]".into());
    };
    let mut config = consumer::pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: var("FILTER").unwrap_or("events.>".to_owned()),
        ack_wait: Duration::from_secs(10),
        ..Default::default()
    };
    if let Some(start) = args().nth(3) {
        let start_time = OffsetDateTime::parse(&start, &Rfc3339)?;
        config.deliver_policy = consumer::DeliverPolicy::ByStartTime { start_time };
    }
    let options = match var("NATS_CREDS") {
        Ok(file) => ConnectOptions::with_credentials_file(file).await?,
        Err(_) => ConnectOptions::new(),
    };
    let jetstream = jetstream::new(options.connect(url).await?);
    let events = jetstream.get_stream_no_info("EVENTS").await?;
    let consumer = events.get_or_create_consumer(&name, config).await?;
    let messages = consumer.stream().max_messages_per_batch(100);
    let mut messages = messages.messages().await?;
    while let Some(message) = messages.try_next().await? {
        if let Ok(event) = Event::decode(message.payload.clone()) {
            let object = event.involved_object.unwrap_or_default();
            // Only the subject proves which cluster published an event, not its body.
            let cluster = message.subject.split('.').nth(1).unwrap_or_default();
            println!(
                "{} {} {} {}/{}: {:?}",
                event.id, cluster, object.kind, object.namespace, object.name, event.message
            );
        }
        // Only now: an event that is not acknowledged is delivered again after `ack_wait`.
        message.ack().await?;
    }
    Ok(())
}
