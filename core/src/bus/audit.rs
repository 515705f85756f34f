//! Records of the actions that people ask for.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use jiff::Timestamp;
use prost::Message as _;

use crate::bus::publish::PublishAck;
use crate::bus::search::{Budget, SearchEnd, Start, StoredMessage};
use crate::bus::{Bus, BusError, streams};
use crate::model::subject;
use crate::model::text::cut_bytes;
use crate::wire::AuditRecord;

/// The longest text of a record.
const MAX_TEXT: usize = 1000;
/// The most namespaces of a record.
const MOST_NAMESPACES: usize = 50;
/// The stream holds less than this.
const MOST_BYTES: u64 = 256 << 20;
/// Reading ends after this time.
const WITHIN: Duration = Duration::from_secs(30);

/// A record, and when it was stored by the server's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAction {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The record.
    pub record: AuditRecord,
}

impl Bus {
    /// Stores who asks for what, before it is done.
    ///
    /// # Errors
    /// The record might not be stored.
    pub async fn record_action(&self, mut record: AuditRecord) -> Result<PublishAck, BusError> {
        for text in [
            &mut record.target,
            &mut record.who,
            &mut record.from,
            &mut record.detail,
        ] {
            *text = cut_bytes(text, MAX_TEXT);
        }
        let named = record.namespaces.len() + record.objects.len();
        let objects = record.objects.iter();
        let objects = objects.flat_map(|object| [&object.cluster, &object.namespace]);
        let is_long = |name: &String| name.len() > MAX_TEXT;
        let has_long = record.namespaces.iter().chain(objects).any(is_long);
        if named > MOST_NAMESPACES || has_long {
            record.namespaces.clear();
            record.objects.clear();
        }
        let message = PublishMessage::build().payload(self.encoded(&record).await?);
        Ok(self
            .publish(subject::audit(&record.action), message)
            .await?)
    }

    /// The last records since a time, oldest first, and whether there are more.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream cannot be read.
    pub async fn recorded_actions(
        &self,
        since: Timestamp,
        most: usize,
    ) -> Result<(Vec<StoredAction>, bool), BusError> {
        let mut budget = Budget::new(u64::MAX, MOST_BYTES, WITHIN);
        let (mut found, mut has_more) = (VecDeque::new(), false);
        let handle = |message: StoredMessage| {
            if let Ok(record) = AuditRecord::decode(message.payload) {
                found.push_back(StoredAction {
                    sequence: message.sequence,
                    stored_at: message.stored_at,
                    record,
                });
                if found.len() > most {
                    found.pop_front();
                    has_more = true;
                }
            }
            ControlFlow::Continue(())
        };
        let filters = [subject::ALL_AUDIT.to_owned()];
        let from = Start::Time(since);
        let end = self.search(streams::AUDIT, &filters, from, &mut budget, handle);
        if end.await? == SearchEnd::Cut {
            return Err(BusError::Unavailable(
                "the stream AUDIT cannot be read in time".to_owned(),
            ));
        }
        Ok((found.into(), has_more))
    }
}
