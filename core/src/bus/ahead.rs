//! The consumer that routes events of some clusters ahead of a backlog of others.
//!
//! It exists only while there is such a backlog. The consumer `router` still reads every event, so
//! nothing depends on this one.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::bus::consumers::Sequences;
use crate::bus::{Bus, streams};

/// The consumer, as the server reports it.
#[derive(Clone, Debug, Deserialize)]
pub struct AheadConsumer {
    /// When it was created.
    pub created: Timestamp,
    /// Its configuration.
    config: Config,
    /// The last event that was delivered.
    delivered: Sequences,
    /// All its events up to this one are acknowledged.
    ack_floor: Sequences,
}

/// How far the consumer `router` is.
#[derive(Clone, Copy, Debug)]
pub struct RouterProgress {
    /// All events up to this sequence are acknowledged.
    pub routed_until: u64,
    /// The number of events that are not acknowledged.
    pub waiting: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Config {
    #[serde(default)]
    filter_subject: Option<String>,
    #[serde(default)]
    filter_subjects: Vec<String>,
    #[serde(default)]
    opt_start_seq: u64,
}

impl AheadConsumer {
    /// The filters of its subjects.
    pub fn filters(&self) -> Vec<String> {
        let single = self.config.filter_subject.iter().cloned();
        single.chain(self.config.filter_subjects.clone()).collect()
    }

    /// The sequence of the first event that it may read.
    pub fn begins_at(&self) -> u64 {
        self.config.opt_start_seq
    }

    /// All its events up to this sequence are routed.
    pub fn routed_until(&self) -> u64 {
        self.ack_floor.stream_seq
    }

    /// The sequence of the last event that it delivered.
    pub fn delivered_until(&self) -> u64 {
        self.delivered.stream_seq
    }

    /// The configuration of a puller for this consumer.
    pub fn puller_config(&self) -> pull::Config {
        streams::ahead_consumer(&self.filters(), self.begins_at())
    }
}

impl Bus {
    /// Reads the consumer. `None` if it does not exist.
    ///
    /// # Errors
    /// The server does not answer, or refuses the request.
    pub async fn ahead(&self) -> Result<Option<AheadConsumer>, String> {
        let subject = format!("CONSUMER.INFO.{}.{}", streams::EVENTS, streams::AHEAD);
        let response = self.jetstream().request(subject, &json!({})).await;
        match response.map_err(|error| error.to_string())? {
            Response::Ok::<AheadConsumer>(consumer) => Ok(Some(consumer)),
            Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                Ok(None)
            }
            Response::Err { error } => Err(error.to_string()),
        }
    }

    /// Creates the consumer for events of these subjects, after all that the routers have routed.
    /// An existing one stays as it is.
    ///
    /// # Errors
    /// The server does not answer, refuses the request, or routers never read EVENTS.
    pub async fn create_ahead(&self, filters: &[String]) -> Result<(), String> {
        let router = self.router_progress().await?;
        let stream = self.jetstream().get_stream_no_info(streams::EVENTS).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let created = stream
            .create_consumer_strict(streams::ahead_consumer(filters, router.routed_until + 1));
        match created.await {
            Ok(_) => Ok(()),
            // Another router was faster.
            Err(_) if self.ahead().await?.is_some() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Deletes the consumer.
    ///
    /// # Errors
    /// The server does not answer, or refuses the request.
    pub async fn delete_ahead(&self) -> Result<(), String> {
        let stream = self.jetstream().get_stream_no_info(streams::EVENTS).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let deleted = stream.delete_consumer(streams::AHEAD).await;
        deleted.map(drop).map_err(|error| error.to_string())
    }

    /// Reads how far the consumer `router` is.
    ///
    /// # Errors
    /// The server does not answer, or there is no such consumer.
    pub async fn router_progress(&self) -> Result<RouterProgress, String> {
        let state = self.consumer_state(streams::EVENTS, streams::ROUTER);
        let state = state.await?.ok_or("there is no consumer `router`")?;
        Ok(RouterProgress {
            routed_until: state.ack_floor.stream_seq,
            waiting: state.num_pending + state.num_ack_pending,
        })
    }
}
