//! Compares a reading with the record of an earlier one. Pure.
//!
//! Two sums only grow while nothing is lost:
//!
//! - the stored messages, plus the acknowledgements that the consumers count. A consumer does not
//!   count these, but it counts what it delivered and what of it is not acknowledged. The
//!   difference is the number of acknowledgements, plus that of redelivered messages.
//! - the stored messages, plus the outcomes that ended a delivery.
//!
//! A message that is parked, resumed, replaced, woken or requeued changes neither. A sum that fell
//! shows at least how many deliveries are gone. Each sum alone can also fall for another reason:
//! a worker dies before it publishes an outcome, or a server that was killed does not know its
//! last deliveries. So the smaller difference counts.

use std::time::Duration;

use crate::bus::losses::reading::{ConsumerCount, Reading};
use crate::model::time::{between, from_proto, to_proto};
use crate::wire::{ConsumerCounts, DeliveryCounts};

/// Without a change for this long, no delivery ends at the moment when a server is killed.
const QUIET_AFTER: Duration = Duration::from_secs(3);

/// The deliveries that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Those that were ready.
    pub ready: u64,
    /// Those that were parked.
    pub parked: u64,
}

impl Lost {
    /// The number of all.
    pub fn total(self) -> u64 {
        self.ready + self.parked
    }

    /// The smaller loss of two.
    pub fn min(self, other: Self) -> Self {
        if other.total() < self.total() {
            other
        } else {
            self
        }
    }
}

/// Whether acknowledgements were counted since the record, so that the outcomes alone do not
/// decide. Outcomes are stored after acknowledgements, on a busy machine seconds later.
pub fn is_exact(record: &DeliveryCounts, reading: &Reading, is_interrupted: bool) -> bool {
    let is_recreated = record.stream_created_ns != reading.before.created_ns;
    !is_interrupted
        && !is_recreated
        && record.server == reading.server
        && acknowledged_since(record, reading).is_some()
}

/// The deliveries that are gone since the record. `is_interrupted` says that the server did not
/// answer in between, so that it may have been restarted.
pub fn lost(record: &DeliveryCounts, reading: &Reading, is_interrupted: bool) -> Lost {
    let is_recreated = record.stream_created_ns != reading.before.created_ns;
    let messages = match is_recreated {
        true => 0,
        false => reading.before.messages,
    };
    let is_truncated = !is_recreated && reading.before.last_sequence < record.last_sequence;
    let fell = i128::from(record.messages) - i128::from(messages);
    let ended = i128::from(reading.ended) - i128::from(record.ended);
    if ended < 0 && !is_truncated && is_interrupted {
        return Lost::default();
    }
    let by_outcomes = fell - ended.max(0);
    let acknowledged =
        acknowledged_since(record, reading).filter(|_| is_exact(record, reading, is_interrupted));
    let gone = match acknowledged {
        Some(acknowledged) => by_outcomes.min(fell - acknowledged),
        None if by_outcomes > i128::from(unknown(record, is_truncated)) => by_outcomes,
        None => 0,
    };
    let gone = u64::try_from(gone).unwrap_or_default();
    let gone = gone.saturating_sub(removed_skipped(record, reading));
    let parked = record
        .parked
        .saturating_sub(if is_recreated {
            0
        } else {
            reading.before.parked()
        })
        .min(gone);
    Lost {
        ready: gone - parked,
        parked,
    }
}

/// The acknowledgements since the record, and the redelivered messages. `None` if a consumer was
/// recreated, because a new one counts from 0.
fn acknowledged_since(record: &DeliveryCounts, reading: &Reading) -> Option<i128> {
    let acknowledged =
        |delivered, unacknowledged| i128::from(delivered) - i128::from(unacknowledged);
    let mut since = 0;
    for (name, now) in &reading.consumers {
        since += acknowledged(now.delivered, now.unacknowledged);
        if !record.consumers.contains_key(name) && now.created_ns < read_at_ns(record) {
            return None;
        }
    }
    for (name, before) in &record.consumers {
        let now = reading.consumers.get(name)?;
        if now.created_ns != before.created_ns {
            return None;
        }
        since -= acknowledged(before.delivered, before.unacknowledged);
    }
    Some(since)
}

fn read_at_ns(record: &DeliveryCounts) -> i64 {
    let read_at = from_proto(record.read_at).unwrap_or_default();
    i64::try_from(read_at.as_nanosecond()).unwrap_or_default()
}

/// How many deliveries may have ended without a stored outcome when the server was killed. A worker
/// publishes an outcome within moments after its acknowledgement. A stream whose last sequence fell
/// is proof enough: the server keeps what it has confirmed.
fn unknown(record: &DeliveryCounts, is_truncated: bool) -> u64 {
    let (changed_at, read_at) = (from_proto(record.changed_at), from_proto(record.read_at));
    let quiet_for = changed_at
        .zip(read_at)
        .map_or(Duration::ZERO, |(changed_at, read_at)| {
            between(changed_at, read_at)
        });
    match is_truncated || quiet_for >= QUIET_AFTER {
        true => 0,
        false => 1 + record.peak / 10,
    }
}

/// The stored messages of a consumer that it has neither delivered nor will deliver: the server
/// cannot read them.
pub fn skipped(reading: &Reading, consumer: &ConsumerCount) -> u64 {
    let known = consumer.pending + consumer.unacknowledged;
    reading.before.ready_for(consumer).saturating_sub(known)
}

/// The skipped messages that were counted as lost before and are now removed.
fn removed_skipped(record: &DeliveryCounts, reading: &Reading) -> u64 {
    let consumers = reading.consumers.iter();
    consumers
        .filter_map(|(name, consumer)| {
            let before = record.consumers.get(name)?.skipped;
            Some(before.saturating_sub(skipped(reading, consumer)))
        })
        .sum()
}

/// The record of a reading, which follows an earlier record.
pub fn next_record(
    before: Option<&DeliveryCounts>,
    reading: &Reading,
    lost: Lost,
) -> DeliveryCounts {
    let consumer = |(name, now): (&String, &ConsumerCount)| {
        let known = before.and_then(|before| before.consumers.get(name));
        let counts = ConsumerCounts {
            created_ns: now.created_ns,
            delivered: now.delivered,
            unacknowledged: now.unacknowledged,
            skipped: known.map_or(0, |known| known.skipped),
        };
        (name.clone(), counts)
    };
    let read_at = Some(to_proto(reading.read_at));
    let mut record = DeliveryCounts {
        read_at,
        changed_at: read_at,
        server: reading.server.clone(),
        stream_created_ns: reading.after.created_ns,
        last_sequence: reading.after.last_sequence,
        messages: reading.after.messages,
        parked: reading.after.parked(),
        consumers: reading.consumers.iter().map(consumer).collect(),
        ended: reading.ended,
        ..DeliveryCounts::default()
    };
    if let Some(before) = before {
        let delivered = delivered(&record).saturating_sub(delivered(before));
        record.peak = delivered.max(before.peak / 2);
        record.lost_ready = before.lost_ready + lost.ready;
        record.lost_parked = before.lost_parked + lost.parked;
        record.lost_skipped = before.lost_skipped;
        if is_unchanged(before, &record) {
            record.changed_at = before.changed_at;
        }
    }
    record
}

fn delivered(record: &DeliveryCounts) -> u64 {
    record
        .consumers
        .values()
        .map(|consumer| consumer.delivered)
        .sum()
}

/// Whether all counts are equal.
pub fn is_unchanged(before: &DeliveryCounts, now: &DeliveryCounts) -> bool {
    let counts = |record: &DeliveryCounts| DeliveryCounts {
        read_at: None,
        changed_at: None,
        peak: 0,
        ..record.clone()
    };
    counts(before) == counts(now)
}

#[cfg(test)]
mod tests;
