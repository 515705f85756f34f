//! Finds the latest wanted events in EVENTS.

use std::collections::VecDeque;

use anyhow::Context as _;
use jiff::Timestamp;
use tidings_core::Message as _;
use tidings_core::bus::search::{Collect, SearchEnd, StoredMessage};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::stored_event;

use super::gather::{FoundEvent, Request};
use super::query::Query;

/// The number of digits of the id of an event.
const ID_DIGITS: usize = 32;

/// The latest wanted events of a search.
pub struct Latest<'a> {
    query: &'a Query,
    limit: usize,
    most_bytes: usize,
    /// In the order of their sequences. One more than wanted, to know whether there are more.
    pub events: VecDeque<FoundEvent>,
    bytes: usize,
    pub has_more: bool,
    pub end: SearchEnd,
}

impl Collect for Latest<'_> {
    fn add(&mut self, message: StoredMessage) {
        let Some(found) = read_event(&message).filter(|it| self.query.selects(&it.event)) else {
            return;
        };
        self.bytes += found.event.encoded_len();
        self.events.push_back(found);
        // An older window comes after a newer one.
        let events = self.events.make_contiguous();
        events.sort_by_key(|found| found.sequence);
        while self.events.len() > self.limit + 1
            || (self.bytes > self.most_bytes && self.events.len() > 1)
        {
            self.remove_first();
        }
    }

    fn has_enough(&self) -> bool {
        let is_one = matches!(self.query, Query::Event(id) if id.len() >= ID_DIGITS);
        self.events.len() > if is_one { 0 } else { self.limit }
    }
}

impl Latest<'_> {
    fn remove_first(&mut self) {
        if let Some(removed) = self.events.pop_front() {
            self.bytes -= removed.event.encoded_len();
            self.has_more = true;
        }
    }
}

/// Reads from the end of EVENTS, so that a recent event is found soon.
///
/// # Errors
/// The bus is unavailable.
pub async fn latest_events<'a>(
    bus: &Bus,
    request: &'a Request,
    since: Timestamp,
    limit: usize,
) -> anyhow::Result<Latest<'a>> {
    let filters = [request.query.filter(request.cluster.as_deref())];
    let mut budget = request.bounds.budget();
    let mut latest = Latest {
        query: &request.query,
        limit,
        most_bytes: request.bounds.kept_bytes,
        events: VecDeque::new(),
        bytes: 0,
        has_more: false,
        end: SearchEnd::Complete,
    };
    let end = bus
        .search_from_end(streams::EVENTS, &filters, since, &mut budget, &mut latest)
        .await
        .context("cannot read the stream EVENTS")?;
    latest.end = end;
    if latest.events.len() > limit {
        latest.remove_first();
    }
    Ok(latest)
}

fn read_event(message: &StoredMessage) -> Option<FoundEvent> {
    let event = stored_event::read(&message.subject, &message.payload).ok()?;
    Some(FoundEvent {
        event,
        sequence: message.sequence,
        stored_at: Some(message.stored_at),
    })
}
