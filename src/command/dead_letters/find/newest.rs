//! Finds dead letters from the end of the stream, in windows: a stream is read in one direction.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_core::bus::search::{Budget, SearchEnd, Start, StoredMessage};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::subject::ALL_DEAD;
use tidings_core::{DeadLetter, Message as _};

use super::{Criteria, Filter, Page, Part, READ_FOR_EACH_BYTE, StoredDeadLetter};

/// The number of sequences in the first window, and in the smallest.
const FIRST_WINDOW: u64 = 64;
/// Reading ends after this time.
const WITHIN: Duration = Duration::from_secs(10);

/// What is kept of a window: the newest that have room.
struct Kept<'a> {
    criteria: &'a Criteria,
    most: usize,
    most_bytes: usize,
    found: VecDeque<(usize, StoredDeadLetter)>,
    bytes: usize,
    read: u64,
    bytes_read: u64,
    has_left_out: bool,
}

impl Kept<'_> {
    fn add(&mut self, message: StoredMessage) {
        let size = message.payload.len();
        self.read += 1;
        self.bytes_read += size as u64;
        let Ok(dead_letter) = DeadLetter::decode(message.payload) else {
            return;
        };
        if !self.criteria.are_met_by(&dead_letter) {
            return;
        }
        let sequence = message.sequence;
        let stored = StoredDeadLetter {
            sequence,
            dead_letter,
        };
        self.bytes += size;
        self.found.push_back((size, stored));
        let is_full = |kept: &Self| kept.found.len() > kept.most || kept.bytes > kept.most_bytes;
        while is_full(self) && self.found.len() > 1 {
            if let Some((size, _)) = self.found.pop_front() {
                self.bytes -= size;
            }
            self.has_left_out = true;
        }
    }
}

/// Returns what a filter selects before the sequence `part.after`, newest first. `next` of the page
/// is the sequence that the next page ends before.
///
/// # Errors
/// The filter is invalid, or the stream cannot be read.
pub async fn find_newest(bus: &Bus, filter: &Filter, part: Part) -> anyhow::Result<Page> {
    const UNREADABLE: &str = "cannot read the stream DEAD";
    let criteria = filter.criteria()?;
    let stream = bus.jetstream().get_stream(streams::DEAD).await;
    let stream = stream.context("stream DEAD not found: is Tidings running?")?;
    let state = &stream.cached_info().state;
    let oldest = state.first_sequence.max(1);
    let mut page = Page {
        stored: state.messages,
        ..Page::default()
    };
    let mut budget = Budget::new(
        u64::try_from(part.most_read)?,
        u64::try_from(part.most_bytes.saturating_mul(READ_FOR_EACH_BYTE))?,
        WITHIN,
    );
    let (mut end, mut size) = (part.after.min(state.last_sequence + 1), FIRST_WINDOW);
    let mut bytes = 0;
    while end > oldest {
        let first = end.saturating_sub(size).max(oldest);
        let mut kept = Kept {
            criteria: &criteria,
            most: part.most_found - page.found.len(),
            most_bytes: part.most_bytes.saturating_sub(bytes),
            found: VecDeque::new(),
            bytes: 0,
            read: 0,
            bytes_read: 0,
            has_left_out: false,
        };
        let mut left = budget;
        let handle = |message: StoredMessage| {
            if message.sequence >= end {
                return ControlFlow::Break(());
            }
            kept.add(message);
            ControlFlow::Continue(())
        };
        let filters = [ALL_DEAD.to_owned()];
        let from = Start::Sequence(first);
        let searched = bus.search(streams::DEAD, &filters, from, &mut left, handle);
        if searched.await.context(UNREADABLE)? == SearchEnd::Cut {
            if !page.found.is_empty() {
                page.next = Some(end);
                return Ok(page);
            }
            ensure!(
                size > FIRST_WINDOW,
                "the dead letters cannot be read in time"
            );
            size = FIRST_WINDOW;
            continue;
        }
        budget = left;
        bytes += kept.bytes;
        let (read, has_left_out) = (kept.read, kept.has_left_out);
        page.found
            .extend(kept.found.into_iter().rev().map(|(_, stored)| stored));
        end = match page.found.last() {
            Some(last) if has_left_out => last.sequence,
            _ => first,
        };
        let is_enough = page.found.len() >= part.most_found || bytes >= part.most_bytes;
        if has_left_out || is_enough || budget.messages < FIRST_WINDOW {
            page.next = (end > oldest).then_some(end);
            return Ok(page);
        }
        // Much may have been dropped: then a window has few messages.
        let grown = size.saturating_mul(4);
        size = if read < size / 4 {
            grown
        } else {
            grown.min(1024)
        };
    }
    Ok(page)
}
