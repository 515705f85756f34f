//! Compares what was posted with what was received and what is dead, event by event.

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

/// Where the accepted events ended.
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
        let wait = eventually("every event is received or dead", async || {
            let balance = balance(rig, receiver).await;
            missing = self
                .accepted
                .iter()
                .filter(|id| !balance.has(id))
                .cloned()
                .collect();
            missing.is_empty().then_some(())
        });
        // Ends before the wait itself, whose panic would not name the missing events, and after
        // JetStream has redelivered what a dead process held.
        let in_time = tokio::time::timeout(crate::PATIENCE.mul_f64(0.9), wait).await;
        assert!(
            in_time.is_ok(),
            "accepted, but neither received nor dead: {missing:?}"
        );
        rig.drained().await;
        let balance = balance(rig, receiver).await;
        let strays: Vec<_> = balance
            .ids()
            .filter(|id| !self.accepted.contains(*id) && !self.unanswered.contains(*id))
            .collect();
        assert!(
            strays.is_empty(),
            "received or dead, but never posted: {strays:?}"
        );
        balance
    }

    fn note(&mut self, message: &str, response: Result<HttpResponse, reqwest::Error>) {
        match response {
            // 429: an earlier try was stored, although it got no response.
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

    /// The events that were both received and given up.
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
