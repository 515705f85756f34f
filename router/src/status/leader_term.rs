//! A leader's term: collects what is to be written, and writes it when it is due.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use kube::Error;
use tidings_core::Message;
use tidings_core::runtime::metrics::labels::StatusWriteOutcome;
use tidings_core::wire::{Circuit, DeadLetter, Outcome};
use tidings_rules::Identity;

use super::apply::{self, WriteError};
use super::writer::StatusWriter;
use crate::status::event_series::{DeadLetterEvents, EventWrite, PendingWrite};
use crate::status::ready_condition::{self, ReadyCondition};
use crate::status::status_cache::StatusCache;
use crate::status::stream_reader::StreamMessage;
use crate::status::write_queue::{Backoff, WriteQueue};

/// The first sequences of OUTCOMES and DEAD that are not written yet, if known.
pub(super) type Position = (Option<u64>, Option<u64>);

/// A leader's term.
pub(super) struct LeaderTerm<'a> {
    writer: &'a StatusWriter,
    cache: StatusCache,
    queue: WriteQueue<Identity>,
    events: DeadLetterEvents,
    /// The sequences to read next.
    read: Position,
    /// The position as last saved.
    kept: Position,
    /// Separate, because RBAC may allow only one of statuses and Events.
    status_backoff: Backoff,
    event_backoff: Backoff,
}

impl<'a> LeaderTerm<'a> {
    pub(super) fn new(writer: &'a StatusWriter, instance: &str, position: Position) -> Self {
        Self {
            writer,
            cache: StatusCache::default(),
            queue: WriteQueue::default(),
            events: DeadLetterEvents::new(instance),
            read: position,
            kept: position,
            status_backoff: Backoff::default(),
            event_backoff: Backoff::default(),
        }
    }

    /// Recomputes all conditions. Blocking, because notifiers are built for it.
    pub(super) async fn check_rules(&mut self) {
        let (rules, check) = (self.writer.rules.current(), self.writer.check.clone());
        let found = tokio::task::spawn_blocking(move || {
            let conditions = ready_condition::ready_conditions(&rules, check.as_ref());
            (rules, conditions)
        });
        let (rules, conditions): (_, HashMap<Identity, ReadyCondition>) = match found.await {
            Ok(found) => found,
            Err(error) => {
                return tracing::error!(code = codes::STATUS_CHECK_PANICKED, %error, "checking rules panicked; object status stays unchanged");
            }
        };
        let catalog = &self.writer.catalog;
        let read = |identity: &Identity, uid: &str| {
            let seen = catalog.observed(identity).filter(|seen| seen.uid == uid);
            seen.map(|seen| seen.status.clone()).unwrap_or_default()
        };
        let (changed, gone) = self.cache.set_conditions(rules.entries(), conditions, read);
        changed
            .iter()
            .for_each(|identity| self.queue.push_condition(identity));
        gone.iter().for_each(|identity| self.queue.remove(identity));
    }

    /// Compares with the statuses of a new list: a write may be lost, or be possible now.
    pub(super) async fn reload(&mut self) {
        let catalog = &self.writer.catalog;
        let read = |identity: &Identity, uid: &str| {
            catalog
                .observed(identity)
                .filter(|seen| seen.uid == uid)
                .map(|seen| seen.status.clone())
        };
        for identity in self.cache.reload(read) {
            self.queue.push_update(&identity, Instant::now());
        }
        self.check_rules().await;
    }

    /// Applies an outcome.
    pub(super) fn apply_outcome(&mut self, read: &StreamMessage) {
        self.read.0 = Some(read.sequence + 1);
        let Ok(outcome) = Outcome::decode(read.payload.clone()) else {
            return;
        };
        for identity in self
            .cache
            .apply_outcome(read.sequence, &outcome, read.stored)
        {
            self.queue.push_update(&identity, Instant::now());
        }
    }

    /// Applies a dead letter, unless its Alert no longer exists.
    pub(super) fn apply_dead_letter(&mut self, read: &StreamMessage) {
        self.read.1 = Some(read.sequence + 1);
        let Ok(letter) = DeadLetter::decode(read.payload.clone()) else {
            return;
        };
        let alert = letter
            .delivery
            .as_ref()
            .and_then(|delivery| delivery.alert.as_ref());
        let identity = alert.map(|alert| Identity {
            kind: "Alert".to_owned(),
            namespace: alert.namespace.clone(),
            name: alert.name.clone(),
        });
        if let Some(uid) = identity.and_then(|identity| self.cache.uid(&identity)) {
            self.events.add(
                read.sequence,
                &letter,
                uid,
                (Timestamp::now(), Instant::now()),
            );
        }
    }

    /// Applies a circuit.
    pub(super) fn apply_circuit(&mut self, circuit: Circuit) {
        match self.cache.apply_circuit(circuit) {
            Some((identity, true)) => self.queue.push_condition(&identity),
            Some((identity, false)) => self.queue.push_update(&identity, Instant::now()),
            None => {}
        }
    }

    /// When the next write is due.
    pub(super) fn next_write(&self, now: Instant) -> Option<Instant> {
        self.next_status(now)
            .into_iter()
            .chain(self.next_event(now))
            .min()
    }

    fn next_status(&self, now: Instant) -> Option<Instant> {
        self.queue
            .when(now)
            .map(|when| self.status_backoff.after(when))
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        self.events
            .when(now)
            .map(|when| self.event_backoff.after(when))
    }

    /// Writes one status or one Event that is due.
    pub(super) async fn write(&mut self) {
        let now = Instant::now();
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_due(self.next_status(now)) {
            if let Some(identity) = self.queue.take(now) {
                self.write_status(&identity).await;
            }
        } else if is_due(self.next_event(now))
            && let Some(taken) = self.events.take(now)
        {
            self.write_event(&taken).await;
        }
    }

    async fn write_status(&mut self, identity: &Identity) {
        let Some(uid) = self.cache.uid(identity).map(str::to_owned) else {
            return;
        };
        let Some(capabilities) = self.writer.catalog.served_api() else {
            return;
        };
        let served = capabilities.of(&identity.kind);
        if !served.has_status {
            warn_once();
            return self.cache.skip(identity);
        }
        let Some(status) = self.cache.desired(identity, Timestamp::now()) else {
            return;
        };
        match apply::status(&self.writer.client, served, identity, &uid, &status).await {
            Ok(()) => {
                self.cache.written(identity, &uid, status);
                self.status_backoff.succeed();
                self.count(StatusWriteOutcome::Written);
            }
            Err(error) if self.should_retry(&format!("the status of {identity}"), &error) => {
                self.status_backoff.fail(Instant::now());
                self.queue.push_condition(identity);
            }
            Err(_) => self.cache.skip(identity),
        }
    }

    async fn write_event(&mut self, taken: &PendingWrite) {
        let is_new = matches!(taken.write, EventWrite::Create(_));
        let what = || {
            format!(
                "a Kubernetes Event on Alert {}/{}",
                taken.key.namespace, taken.key.alert
            )
        };
        match apply::event(&self.writer.client, &taken.write).await {
            Ok(()) => {
                self.event_backoff.succeed();
                self.count(StatusWriteOutcome::Written);
            }
            // The API server or somebody deleted the Event.
            Err(WriteError::NotFound) if !is_new => self.events.retry(taken, true),
            Err(error) if self.should_retry(&what(), &error) => {
                self.event_backoff.fail(Instant::now());
                self.events.retry(taken, is_new);
            }
            Err(_) => {}
        }
    }

    /// Counts and logs a failed write. Returns whether to retry it.
    fn should_retry(&self, what: &str, error: &WriteError) -> bool {
        match error {
            WriteError::NotFound => {
                self.count(StatusWriteOutcome::NotFound);
                false
            }
            // The write itself is invalid, so a retry does not help.
            WriteError::Api(Error::Api(status)) if matches!(status.code, 400 | 422) => {
                self.count(StatusWriteOutcome::Rejected);
                tracing::error!(
                    code = codes::STATUS_REJECTED,
                    %error,
                    object = %what,
                    "API server rejected a status write"
                );
                false
            }
            _ => {
                self.count(StatusWriteOutcome::Failed);
                tracing::warn!(
                    code = codes::STATUS_NOT_WRITTEN,
                    %error,
                    object = %what,
                    "status not written, retrying"
                );
                true
            }
        }
    }

    fn count(&self, outcome: StatusWriteOutcome) {
        self.writer
            .metrics
            .router_status_writes_total
            .get_or_create(&outcome)
            .inc();
    }

    /// The position, if it is not saved yet.
    pub(super) fn unsaved_position(&self) -> Option<Position> {
        let position = (
            self.cache.since().or(self.read.0),
            self.events.since().or(self.read.1),
        );
        (position != self.kept).then_some(position)
    }

    /// Records that the position is saved.
    pub(super) fn position_saved(&mut self, position: Position) {
        self.kept = position;
    }
}

/// Warns once that only Flux's CRDs are installed.
fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            code = codes::STATUS_UNAVAILABLE,
            "the installed CRDs of Alert and Provider have no status; install the CRDs of Tidings"
        );
    }
}
