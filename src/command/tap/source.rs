//! Where a tap reads: with consumers of its choice, or with those that the credentials of a tap of
//! a fleet permit.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tidings_core::bus::{Bus, streams};
use tidings_core::model::tap_access::TapAccess;

use super::span::Span;

pub const UNREADABLE: &str = "cannot read the stream EVENTS";
/// How long a tap of a fleet tries to continue after its consumer is lost.
const RESUME_TRIES: usize = 60;
const RESUME_PAUSE: Duration = Duration::from_secs(1);

/// The messages of a consumer.
pub type Messages = BoxStream<'static, anyhow::Result<Message>>;

/// The stream EVENTS, as the credentials permit to read it.
pub enum Source {
    /// Consumers of any name, which are recreated by the client.
    Any(Box<Stream>),
    /// Only these consumers, and no request about the stream.
    Tap(Box<Bus>, TapAccess),
}

impl Source {
    /// Finds out which consumers the credentials permit.
    ///
    /// # Errors
    /// The stream EVENTS does not exist.
    pub async fn open(bus: &Bus) -> anyhow::Result<Self> {
        if let Some(access) = bus.tap() {
            return Ok(Self::Tap(Box::new(bus.clone()), access.clone()));
        }
        let found = bus.jetstream().get_stream(streams::EVENTS).await;
        let stream = found.context(
            "cannot read the stream EVENTS: is Tidings running, and do the credentials permit it?",
        )?;
        Ok(Self::Any(Box::new(stream)))
    }

    /// The filter for the wanted events that the credentials permit.
    ///
    /// # Errors
    /// They permit none of them.
    pub fn filter(&self, wanted: String) -> anyhow::Result<String> {
        let Self::Tap(_, access) = self else {
            return Ok(wanted);
        };
        let within = access.within(&wanted);
        within.with_context(|| {
            format!(
                "the credentials permit only events of {}, and none of {wanted}",
                access.filter
            )
        })
    }

    /// Where reading begins.
    pub fn start(&self, span: &Span, now: Timestamp) -> DeliverPolicy {
        match self {
            Self::Any(stream) => span.start(stream.cached_info().state.last_sequence, now),
            Self::Tap(..) if span.since.is_none() && span.awaits_events(now) => DeliverPolicy::New,
            Self::Tap(..) => span.start(0, now),
        }
    }

    /// The last sequence that is stored now, if the credentials permit to ask.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn last_sequence(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Any(stream) => {
                let info = stream.get_info().await.context(UNREADABLE)?;
                Ok(Some(info.state.last_sequence))
            }
            Self::Tap(..) => Ok(None),
        }
    }

    /// The messages from `start` on, and how many of them are stored now.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn messages(
        &self,
        filter: &str,
        start: DeliverPolicy,
    ) -> anyhow::Result<(u64, Messages)> {
        match self {
            Self::Any(stream) => {
                let config = OrderedConfig {
                    deliver_policy: start,
                    filter_subject: filter.to_owned(),
                    // The client keeps what it asked for in memory, also while nobody reads.
                    max_batch: 64,
                    ..OrderedConfig::default()
                };
                let consumer = stream.create_consumer(config).await.context(UNREADABLE)?;
                let waiting = consumer.cached_info().num_pending;
                let messages = consumer.messages().await.context(UNREADABLE)?;
                let messages = messages.map(|message| message.context(UNREADABLE));
                Ok((waiting, messages.boxed()))
            }
            Self::Tap(bus, access) => {
                let created = bus.create_tap_consumer(access, filter, start).await;
                let consumer = created.context(UNREADABLE)?;
                let waiting = consumer.cached_info().num_pending;
                let messages = consumer.messages().await.context(UNREADABLE)?;
                let messages = messages.map(|message| message.context(UNREADABLE));
                Ok((waiting, messages.boxed()))
            }
        }
    }

    /// Continues after an error, for example because the server restarted.
    ///
    /// # Errors
    /// The client would have continued by itself if it could, or the server does not answer.
    pub async fn resume(
        &self,
        filter: &str,
        start: DeliverPolicy,
        error: anyhow::Error,
    ) -> anyhow::Result<Messages> {
        if matches!(self, Self::Any(_)) {
            return Err(error);
        }
        for _ in 0..RESUME_TRIES {
            tokio::time::sleep(RESUME_PAUSE).await;
            if let Ok((_, messages)) = self.messages(filter, start).await {
                return Ok(messages);
            }
        }
        bail!("{error:#}; the tap could not continue")
    }
}
