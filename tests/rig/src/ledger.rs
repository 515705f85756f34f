//! Double-entry: what was posted against what was received and what died, id by id.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::event;
use crate::process::Process;
use crate::receiver::Receiver;
use crate::wait::eventually;
use crate::{Answer, Rig};

/// The events that a test has posted, known by their messages.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: BTreeSet<String>,
    unanswered: BTreeSet<String>,
}

/// Where all accepted events have ended.
#[derive(Debug)]
pub struct Balance {
    /// How often each event was received.
    pub received: BTreeMap<String, usize>,
    /// The events that are dead letters.
    pub dead: BTreeSet<String>,
}

impl Ledger {
    /// Posts the event with this message, and notes what became of it.
    pub async fn post(&mut self, ingest: &Process, message: &str) {
        self.note(message, ingest.post(&event(message)).await);
    }

    /// Posts events one by one until each of them is accepted: again after 503, and when there was
    /// no answer.
    pub async fn post_insistently(
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

    /// Waits until every accepted event has been received or is a dead letter, and nothing is left
    /// to do.
    ///
    /// # Panics
    /// With the ids that are missing, and when something was received that was never posted.
    pub async fn settled(&self, rig: &Rig, receiver: &Receiver) -> Balance {
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
        // Sooner than the wait itself would end without a word about what is missing; later than
        // what a dead process held comes again.
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

    fn note(&mut self, message: &str, answer: Result<Answer, reqwest::Error>) {
        match answer {
            // 429: an earlier try, which got no answer, had been stored.
            Ok(Answer {
                status: 202 | 429, ..
            }) => self.accepted.insert(message.to_owned()),
            _ => self.unanswered.insert(message.to_owned()),
        };
    }
}

impl Balance {
    /// The events that were received more than once, with how often.
    pub fn duplicates(&self) -> BTreeMap<&str, usize> {
        self.received
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(id, count)| (id.as_str(), *count))
            .collect()
    }

    /// The events that were received although one of their deliveries is a dead letter.
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
        .filter_map(|letter| letter.delivery?.event);
    Balance {
        received,
        dead: events.map(|event| event.message).collect(),
    }
}
