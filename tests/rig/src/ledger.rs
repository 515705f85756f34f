//! Compares the posted events with the received ones and the dead letters, one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::event;
use crate::process::Process;
use crate::receiver::Receiver;
use crate::wait::eventually;
use crate::{HttpResponse, Rig};

/// The events that a test posted, identified by their messages.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: BTreeSet<String>,
    unanswered: BTreeSet<String>,
}

/// The accepted events that were received, and those that are dead letters.
#[derive(Debug)]
pub struct Balance {
    /// How often each event was received.
    pub received: BTreeMap<String, usize>,
    /// The events that are dead letters.
    pub dead: BTreeSet<String>,
}

impl Ledger {
    /// Posts the event with this message, and records whether it was accepted.
    pub async fn post(&mut self, ingest: &Process, message: &str) {
        self.note(message, ingest.post(&event(message)).await);
    }

    /// Posts events one by one, and retries each until it is accepted.
    pub async fn post_until_accepted(
        &mut self,
        ingest: &Process,
        messages: impl IntoIterator<Item = String>,
    ) {
        for message in messages {
            eventually(&format!("{message:?} is accepted"), async || {
                self.post(ingest, &message).await;
                self.accepted.contains(&message).then_some(())
            })
            .await;
        }
    }

    /// The events that were accepted.
    pub fn accepted(&self) -> &BTreeSet<String> {
        &self.accepted
    }

    /// Waits until every accepted event is received or a dead letter, and DELIVERIES is empty.
    ///
    /// # Panics
    /// Accepted events are missing, or something was received that was never posted.
    pub async fn balanced(&self, rig: &Rig, receiver: &Receiver) -> Balance {
        let mut missing = BTreeSet::new();
        let wait = eventually("every event is received or a dead letter", async || {
            let balance = balance(rig, receiver).await;
            missing = self
                .accepted
                .iter()
                .filter(|id| !balance.has(id))
                .cloned()
                .collect();
            missing.is_empty().then_some(())
        });
        // Shorter than the wait itself, whose panic does not list the missing events. Longer than
        // JetStream needs to redeliver the messages of a dead process.
        let in_time = tokio::time::timeout(crate::PATIENCE.mul_f64(0.9), wait).await;
        assert!(
            in_time.is_ok(),
            "accepted, but neither received nor dead letters: {missing:?}"
        );
        rig.drained().await;
        let balance = balance(rig, receiver).await;
        let unexpected: Vec<_> = balance
            .ids()
            .filter(|id| !self.accepted.contains(*id) && !self.unanswered.contains(*id))
            .collect();
        assert!(
            unexpected.is_empty(),
            "received or dead letters, but never posted: {unexpected:?}"
        );
        balance
    }

    fn note(&mut self, message: &str, response: Result<HttpResponse, reqwest::Error>) {
        match response {
            // 429: an earlier post was stored, although it got no response.
            Ok(HttpResponse {
                status: 202 | 429, ..
            }) => self.accepted.insert(message.to_owned()),
            _ => self.unanswered.insert(message.to_owned()),
        };
    }
}

impl Balance {
    /// The events that were received more than once, with their count.
    pub fn duplicates(&self) -> BTreeMap<&str, usize> {
        self.received
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(id, count)| (id.as_str(), *count))
            .collect()
    }

    /// The events that were received and are dead letters, too.
    pub fn in_both(&self) -> impl Iterator<Item = &String> {
        self.dead
            .iter()
            .filter(|id| self.received.contains_key(*id))
    }

    fn has(&self, id: &str) -> bool {
        self.received.contains_key(id) || self.dead.contains(id)
    }

    fn ids(&self) -> impl Iterator<Item = &String> {
        self.received.keys().chain(&self.dead)
    }
}

async fn balance(rig: &Rig, receiver: &Receiver) -> Balance {
    let mut received = BTreeMap::new();
    for request in receiver.accepted() {
        *received.entry(request.message()).or_default() += 1;
    }
    let events = rig
        .dead_letters()
        .await
        .into_iter()
        .filter_map(|dead| dead.delivery?.event);
    Balance {
        received,
        dead: events.map(|event| event.message).collect(),
    }
}
