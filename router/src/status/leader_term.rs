//! A leader's term: what it knows, and the next thing that it writes.

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

use super::apply::{self, NotWritten};
use super::writer::StatusWriter;
use crate::status::event_series::{Notices, Taken, Write};
use crate::status::ready_condition::{self, Finding};
use crate::status::status_cache::Board;
use crate::status::stream_reader::Read;
use crate::status::write_queue::{Backoff, Pacer};

/// The first sequences of OUTCOMES and of DEAD that are not reflected yet, as far as they are
/// known.
pub(super) type Position = (Option<u64>, Option<u64>);

/// A leader's term.
pub(super) struct Term<'a> {
    writer: &'a StatusWriter,
    board: Board,
    pacer: Pacer<Identity>,
    notices: Notices,
    /// The sequences to be read next.
    read: Position,
    /// The position as it was last kept.
    kept: Position,
    /// Of statuses and of Events: an account may write the ones and not the others.
    status_backoff: Backoff,
    event_backoff: Backoff,
}

impl<'a> Term<'a> {
    pub(super) fn new(writer: &'a StatusWriter, instance: &str, position: Position) -> Self {
        Self {
            writer,
            board: Board::default(),
            pacer: Pacer::default(),
            notices: Notices::new(instance),
            read: position,
            kept: position,
            status_backoff: Backoff::default(),
            event_backoff: Backoff::default(),
        }
    }

    /// Finds out anew what is wrong with which object; off the runtime, since notifiers are built
    /// for it.
    pub(super) async fn look(&mut self) {
        let (rules, check) = (self.writer.rules.current(), self.writer.check.clone());
        let found = tokio::task::spawn_blocking(move || {
            let findings = ready_condition::findings(&rules, check.as_ref());
            (rules, findings)
        });
        let (rules, findings): (_, HashMap<Identity, Finding>) = match found.await {
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
        let (changed, gone) = self.board.find(rules.entries(), findings, read);
        changed
            .iter()
            .for_each(|identity| self.pacer.hurry(identity));
        gone.iter().for_each(|identity| self.pacer.forget(identity));
    }

    /// Looks again after the API server was asked for all anew: what was written may be lost, or
    /// can be written by now.
    pub(super) async fn look_anew(&mut self) {
        let catalog = &self.writer.catalog;
        let read = |identity: &Identity, uid: &str| {
            catalog
                .observed(identity)
                .filter(|seen| seen.uid == uid)
                .map(|seen| seen.status.clone())
        };
        for identity in self.board.read_again(read) {
            self.pacer.want(&identity, Instant::now());
        }
        self.look().await;
    }

    /// Folds an outcome.
    pub(super) fn hear(&mut self, read: &Read) {
        self.read.0 = Some(read.sequence + 1);
        let Ok(outcome) = Outcome::decode(read.payload.clone()) else {
            return;
        };
        for identity in self.board.hear(read.sequence, &outcome, read.stored) {
            self.pacer.want(&identity, Instant::now());
        }
    }

    /// Folds a dead letter of an Alert that is there.
    pub(super) fn note(&mut self, read: &Read) {
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
        if let Some(uid) = identity.and_then(|identity| self.board.uid(&identity)) {
            self.notices.note(
                read.sequence,
                &letter,
                uid,
                (Timestamp::now(), Instant::now()),
            );
        }
    }

    /// Folds a circuit.
    pub(super) fn circuit(&mut self, circuit: Circuit) {
        match self.board.circuit(circuit) {
            Some((identity, true)) => self.pacer.hurry(&identity),
            Some((identity, false)) => self.pacer.want(&identity, Instant::now()),
            None => {}
        }
    }

    /// When there is something to write.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.next_status(now)
            .into_iter()
            .chain(self.next_event(now))
            .min()
    }

    fn next_status(&self, now: Instant) -> Option<Instant> {
        self.pacer
            .when(now)
            .map(|when| self.status_backoff.after(when))
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        self.notices
            .when(now)
            .map(|when| self.event_backoff.after(when))
    }

    /// Writes one status that is due, or one Event.
    pub(super) async fn write(&mut self) {
        let now = Instant::now();
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_due(self.next_status(now)) {
            if let Some(identity) = self.pacer.take(now) {
                self.write_status(&identity).await;
            }
        } else if is_due(self.next_event(now))
            && let Some(taken) = self.notices.take(now)
        {
            self.write_event(&taken).await;
        }
    }

    async fn write_status(&mut self, identity: &Identity) {
        let Some(uid) = self.board.uid(identity).map(str::to_owned) else {
            return;
        };
        let Some(capabilities) = self.writer.catalog.served_api() else {
            return;
        };
        let served = capabilities.of(&identity.kind);
        if !served.has_status {
            say_once();
            return self.board.skip(identity);
        }
        let Some(status) = self.board.desired(identity, Timestamp::now()) else {
            return;
        };
        match apply::status(&self.writer.client, served, identity, &uid, &status).await {
            Ok(()) => {
                self.board.written(identity, &uid, status);
                self.status_backoff.succeed();
                self.count(StatusWriteOutcome::Written);
            }
            Err(error) if self.is_passing(&format!("the status of {identity}"), &error) => {
                self.status_backoff.fail(Instant::now());
                self.pacer.hurry(identity);
            }
            Err(_) => self.board.skip(identity),
        }
    }

    async fn write_event(&mut self, taken: &Taken) {
        let is_new = matches!(taken.write, Write::Create(_));
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
            // The API server has forgotten it after its hour, or somebody has deleted it.
            Err(NotWritten::Gone) if !is_new => self.notices.again(taken, true),
            Err(error) if self.is_passing(&what(), &error) => {
                self.event_backoff.fail(Instant::now());
                self.notices.again(taken, is_new);
            }
            Err(_) => {}
        }
    }

    /// Counts and tells what was not written, and whether it is to be tried again.
    fn is_passing(&self, what: &str, error: &NotWritten) -> bool {
        match error {
            NotWritten::Gone => {
                self.count(StatusWriteOutcome::NotFound);
                false
            }
            // Its own fault, which another try does not mend.
            NotWritten::Refused(Error::Api(status)) if matches!(status.code, 400 | 422) => {
                self.count(StatusWriteOutcome::Rejected);
                tracing::error!(code = codes::STATUS_REJECTED, %error, object = %what, "API server rejected a status write");
                false
            }
            _ => {
                self.count(StatusWriteOutcome::Failed);
                tracing::warn!(code = codes::STATUS_NOT_WRITTEN, %error, object = %what, "status not written, retrying");
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

    /// The position, where it is not the one that was kept.
    pub(super) fn moved(&self) -> Option<Position> {
        let position = (
            self.board.since().or(self.read.0),
            self.notices.since().or(self.read.1),
        );
        (position != self.kept).then_some(position)
    }

    /// The position was kept.
    pub(super) fn kept(&mut self, position: Position) {
        self.kept = position;
    }
}

/// Where only Flux's own CRDs are installed.
fn say_once() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            code = codes::STATUS_UNAVAILABLE,
            "the installed CRDs of Alert and Provider have no status; install the CRDs of Tidings"
        );
    }
}
