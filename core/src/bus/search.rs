//! Reads what a stream holds, within bounds. Tools search with it; nothing is consumed.

use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bus::{Bus, BusError, unavailable};

/// The server sends the next stored message within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of messages in the first window of a search from the end. Each further window has
/// four times as many.
const FIRST_WINDOW: u64 = 4096;

/// How much a search may read.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The most messages.
    pub messages: u64,
    /// The most bytes of their payloads.
    pub bytes: u64,
    /// When the search ends at the latest.
    pub until: Instant,
}

/// Where a search begins.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// At this sequence.
    Sequence(u64),
    /// At the first message that was stored at this time or later.
    Time(Timestamp),
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When it was stored, by the server's clock.
    pub stored_at: Timestamp,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchEnd {
    /// Everything was read.
    Complete,
    /// The caller had enough.
    Stopped,
    /// The budget is spent, or what was left is gone.
    Cut,
}

/// Collects what a search from the end finds.
pub trait Collect {
    /// Adds a message.
    fn add(&mut self, message: StoredMessage);

    /// Whether older messages are not needed. It is asked after each window.
    fn has_enough(&self) -> bool;
}

impl Budget {
    /// A budget that ends after this time.
    pub fn new(messages: u64, bytes: u64, within: Duration) -> Self {
        Self {
            messages,
            bytes,
            until: Instant::now() + within,
        }
    }

    /// Takes a message from the budget. `false` if the budget is spent.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.messages == 0 || self.bytes < bytes || Instant::now() > self.until {
            return false;
        }
        self.messages -= 1;
        self.bytes -= bytes;
        true
    }
}

impl Bus {
    /// Calls `handle` with the stored messages whose subjects fit one of the filters, in order,
    /// until it breaks or the budget is spent. Messages that arrive meanwhile are not waited for.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn search(
        &self,
        stream: &str,
        filters: &[String],
        start: Start,
        budget: &mut Budget,
        mut handle: impl FnMut(StoredMessage) -> ControlFlow<()>,
    ) -> Result<SearchEnd, BusError> {
        let stream = self.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(unavailable)?;
        let config = OrderedConfig {
            deliver_policy: policy(start)?,
            filter_subjects: filters.to_vec(),
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let info = consumer.cached_info();
        let (name, mut left) = (info.name.clone(), info.num_pending);
        let mut end = SearchEnd::Complete;
        if left > 0 {
            let mut messages = consumer.messages().await.map_err(unavailable)?;
            while left > 0 {
                let next = timeout_at(budget.until, timeout(READ_TIMEOUT, messages.next()));
                let Ok(Ok(Some(message))) = next.await else {
                    end = SearchEnd::Cut;
                    break;
                };
                let message = message.map_err(unavailable)?;
                let info = message.info().map_err(unavailable)?;
                let (sequence, pending) = (info.stream_sequence, info.pending);
                let stored_at = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos());
                let stored_at = stored_at.map_err(unavailable)?;
                if !budget.take(message.payload.len()) {
                    end = SearchEnd::Cut;
                    break;
                }
                let message = message.message;
                let found = StoredMessage {
                    subject: message.subject.to_string(),
                    sequence,
                    stored_at,
                    headers: message.headers.unwrap_or_default(),
                    payload: message.payload,
                };
                if handle(found).is_break() {
                    end = SearchEnd::Stopped;
                    break;
                }
                left = pending.min(left - 1);
            }
        }
        // Otherwise the server deletes it later.
        let _ = stream.delete_consumer(&name).await;
        Ok(end)
    }

    /// Like [`Bus::search`], but from the end of the stream to messages that were stored at
    /// `since`: in windows, and in order within a window.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn search_from_end(
        &self,
        stream: &str,
        filters: &[String],
        since: Timestamp,
        budget: &mut Budget,
        collector: &mut impl Collect,
    ) -> Result<SearchEnd, BusError> {
        let info = self.jetstream.get_stream(stream).await;
        let state = info.map_err(unavailable)?.cached_info().state.clone();
        let (mut end, mut size) = (state.last_sequence + 1, FIRST_WINDOW);
        while end > state.first_sequence.max(1) {
            let first = end.saturating_sub(size).max(state.first_sequence).max(1);
            let mut reaches_back = false;
            let searched = self
                .search(stream, filters, Start::Sequence(first), budget, |message| {
                    if message.sequence >= end {
                        return ControlFlow::Break(());
                    }
                    if message.stored_at < since {
                        reaches_back = true;
                    } else {
                        collector.add(message);
                    }
                    ControlFlow::Continue(())
                })
                .await?;
            if searched == SearchEnd::Cut {
                return Ok(SearchEnd::Cut);
            }
            if collector.has_enough() {
                return Ok(SearchEnd::Stopped);
            }
            if reaches_back {
                break;
            }
            (end, size) = (first, size.saturating_mul(4));
        }
        Ok(SearchEnd::Complete)
    }

    /// The number of stored messages whose subjects fit one of the filters, from a start on.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn count_from(
        &self,
        stream: &str,
        filters: &[String],
        start: Start,
    ) -> Result<u64, BusError> {
        let stream = self.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(unavailable)?;
        let config = OrderedConfig {
            deliver_policy: policy(start)?,
            filter_subjects: filters.to_vec(),
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let info = consumer.cached_info();
        let (name, pending) = (info.name.clone(), info.num_pending);
        let _ = stream.delete_consumer(&name).await;
        Ok(pending)
    }
}

fn policy(start: Start) -> Result<DeliverPolicy, BusError> {
    Ok(match start {
        Start::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        Start::Time(time) => DeliverPolicy::ByStartTime {
            start_time: OffsetDateTime::from_unix_timestamp_nanos(time.as_nanosecond())
                .map_err(unavailable)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_by_messages_bytes_or_time() {
        let within = Duration::from_secs(60);
        let mut of_messages = Budget::new(1, 100, within);
        assert!(of_messages.take(10) && !of_messages.take(10));
        let mut of_bytes = Budget::new(9, 100, within);
        assert!(of_bytes.take(60) && !of_bytes.take(60) && of_bytes.take(40));
        let mut of_time = Budget::new(9, 100, Duration::ZERO);
        of_time.until -= Duration::from_millis(1);
        assert!(!of_time.take(1));
    }
}
