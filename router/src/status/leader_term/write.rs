//! Writes the statuses and Events of a term that are due, and decides which writes to retry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Error;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::StatusWriteOutcome;
use tidings_rules::Identity;

use super::LeaderTerm;
use crate::status::apply::{self, WriteError};
use crate::status::event_series::{EventWrite, PendingWrite};

impl LeaderTerm<'_> {
    /// When the next write is due.
    pub(in crate::status) fn next_write(&self, now: Instant) -> Option<Instant> {
        self.next_status(now)
            .into_iter()
            .chain(self.next_event(now))
            .chain(self.next_lost(now))
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

    fn next_lost(&self, now: Instant) -> Option<Instant> {
        self.lost
            .when(now)
            .map(|when| self.event_backoff.after(when))
    }

    /// Writes one status or one Event that is due.
    pub(in crate::status) async fn write(&mut self) {
        let now = Instant::now();
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_due(self.next_status(now)) {
            if let Some(identity) = self.queue.take(now) {
                self.write_status(&identity).await;
            }
        } else if is_due(self.next_event(now))
            && let Some(pending) = self.events.take(now)
        {
            self.write_event(&pending).await;
        } else if is_due(self.next_lost(now))
            && let Some(event) = self.lost.take(now)
        {
            self.write_lost(event).await;
        }
    }

    async fn write_lost(&mut self, event: Event) {
        let write = EventWrite::Create(Box::new(event.clone()));
        match apply::event(&self.context.client, &write).await {
            Ok(()) => {
                self.event_backoff.succeed();
                self.count(StatusWriteOutcome::Written);
            }
            Err(error) if self.should_retry("a Kubernetes Event about extensions", &error) => {
                self.event_backoff.fail(Instant::now());
                self.lost.retry(event);
            }
            Err(_) => {}
        }
    }

    async fn write_status(&mut self, identity: &Identity) {
        let Some(uid) = self.cache.uid(identity).map(str::to_owned) else {
            return;
        };
        let Some(served_api) = self.context.catalog.served_api() else {
            return;
        };
        let served = served_api.of(&identity.kind);
        if !served.has_status {
            warn_once();
            return self.cache.skip(identity);
        }
        let Some(status) = self.cache.desired(identity, Timestamp::now()) else {
            return;
        };
        match apply::status(&self.context.client, served, identity, &uid, &status).await {
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

    async fn write_event(&mut self, pending: &PendingWrite) {
        let is_new = matches!(pending.write, EventWrite::Create(_));
        let name = || {
            format!(
                "a Kubernetes Event on Alert {}/{}",
                pending.key.namespace, pending.key.alert
            )
        };
        match apply::event(&self.context.client, &pending.write).await {
            Ok(()) => {
                self.event_backoff.succeed();
                self.count(StatusWriteOutcome::Written);
            }
            // The Event expired or another client deleted it.
            Err(WriteError::NotFound) if !is_new => self.events.retry(pending, true),
            Err(error) if self.should_retry(&name(), &error) => {
                self.event_backoff.fail(Instant::now());
                self.events.retry(pending, is_new);
            }
            Err(_) => {}
        }
    }

    /// Counts and logs a failed write. Returns whether to retry it.
    fn should_retry(&self, object: &str, error: &WriteError) -> bool {
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
                    %object,
                    "API server rejected a status write"
                );
                false
            }
            _ => {
                self.count(StatusWriteOutcome::Failed);
                tracing::warn!(
                    code = codes::STATUS_NOT_WRITTEN,
                    %error,
                    %object,
                    "status not written, retrying"
                );
                true
            }
        }
    }

    fn count(&self, outcome: StatusWriteOutcome) {
        self.context
            .metrics
            .router_status_writes_total
            .get_or_create(&outcome)
            .inc();
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
