//! One term of the leader: applies input at once, and decides when to write.

mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::Client;
use tidings_core::Message;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::{Circuit, DeadLetter, Outcome};
use tidings_rules::cluster::Catalog;
use tidings_rules::{Identity, LiveRules, RulesOrigin, TypeChecks};

use crate::costly_patterns::CostlyPatterns;
use crate::status::event_series::DeadLetterEvents;
use crate::status::lost_events::LostEvents;
use crate::status::ownership;
use crate::status::ready_condition::{self, ReadyCondition};
use crate::status::status_cache::StatusCache;
use crate::status::stream_reader::StreamMessage;
use crate::status::write_queue::{Backoff, WriteQueue};

/// What a term needs to compute statuses and to write them.
pub struct StatusContext {
    /// The client of the API server.
    pub client: Client,
    /// Where the rules are from. What is about rules of other sources is ignored.
    pub origin: RulesOrigin,
    /// The rules of this API server, with its namespaces.
    pub rules: Arc<LiveRules>,
    /// The objects of the rules on the API server.
    pub catalog: Arc<Catalog>,
    /// What this router found out about patterns.
    pub costly: Arc<CostlyPatterns>,
    /// Checks Providers with their types, and templates.
    pub checks: Arc<dyn TypeChecks>,
    /// Counts the writes.
    pub metrics: Metrics,
}

/// The first sequences of OUTCOMES and DEAD that are not written yet, if known.
pub(super) type Position = (Option<u64>, Option<u64>);

pub(super) struct LeaderTerm<'a> {
    context: &'a StatusContext,
    cache: StatusCache,
    queue: WriteQueue<Identity>,
    events: DeadLetterEvents,
    lost: LostEvents,
    /// The sequences to read next.
    next_read: Position,
    /// The position that was last saved.
    saved: Position,
    /// Separate, because RBAC may allow only one of statuses and Events.
    status_backoff: Backoff,
    event_backoff: Backoff,
}

impl<'a> LeaderTerm<'a> {
    pub(super) fn new(context: &'a StatusContext, instance: &str, position: Position) -> Self {
        Self {
            context,
            cache: StatusCache::default(),
            queue: WriteQueue::default(),
            events: DeadLetterEvents::new(instance),
            lost: LostEvents::new(instance),
            next_read: position,
            saved: position,
            status_backoff: Backoff::default(),
            event_backoff: Backoff::default(),
        }
    }

    /// Computes all conditions again, off the runtime: building notifiers blocks.
    pub(super) async fn check_rules(&mut self) {
        let (rules, checks) = (self.context.rules.current(), self.context.checks.clone());
        let costly = self.context.costly.clone();
        let origin = self.context.origin.clone();
        self.lost.update(rules.lost(), Timestamp::now());
        let checked = tokio::task::spawn_blocking(move || {
            let conditions = {
                let costly = costly.of_origin(&origin);
                ready_condition::ready_conditions(&rules, checks.as_ref(), &costly)
            };
            (rules, conditions)
        });
        let (rules, conditions): (_, HashMap<Identity, ReadyCondition>) = match checked.await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(
                    code = codes::STATUS_CHECK_PANICKED,
                    %error,
                    "checking rules panicked; object status stays unchanged"
                );
                return;
            }
        };
        let catalog = &self.context.catalog;
        let current_status = |identity: &Identity, uid: &str| {
            let observed = catalog.observed(identity);
            observed
                .filter(|observed| observed.uid == uid)
                .map(|observed| observed.status.clone())
                .unwrap_or_default()
        };
        let (changed, removed) =
            self.cache
                .set_conditions(rules.entries(), conditions, current_status);
        changed
            .iter()
            .for_each(|identity| self.queue.push_condition(identity));
        removed
            .iter()
            .for_each(|identity| self.queue.remove(identity));
    }

    /// Compares the cache with a new list of objects: another client may have overwritten a status,
    /// or the API server may accept status only now.
    pub(super) async fn reload(&mut self) {
        let catalog = &self.context.catalog;
        let current_status = |identity: &Identity, uid: &str| {
            catalog
                .observed(identity)
                .filter(|observed| observed.uid == uid)
                .map(|observed| observed.status.clone())
        };
        for identity in self.cache.reload(current_status) {
            self.queue.push_update(&identity, Instant::now());
        }
        self.check_rules().await;
    }

    pub(super) fn apply_outcome(&mut self, message: &StreamMessage) {
        self.next_read.0 = Some(message.sequence + 1);
        let Ok(mut outcome) = Outcome::decode(message.payload.clone()) else {
            return;
        };
        ownership::keep_own_of_outcome(&self.context.origin, &mut outcome);
        let changed = self
            .cache
            .apply_outcome(message.sequence, &outcome, message.stored);
        for identity in changed {
            self.queue.push_update(&identity, Instant::now());
        }
    }

    /// Adds a dead letter to the Events of its Alert, unless the Alert no longer exists.
    pub(super) fn apply_dead_letter(&mut self, message: &StreamMessage) {
        self.next_read.1 = Some(message.sequence + 1);
        let Ok(mut dead_letter) = DeadLetter::decode(message.payload.clone()) else {
            return;
        };
        ownership::keep_own_of_dead_letter(&self.context.origin, &mut dead_letter);
        let alert = dead_letter
            .delivery
            .as_ref()
            .and_then(|delivery| delivery.alert.as_ref());
        let identity = alert.map(|alert| Identity {
            kind: "Alert".to_owned(),
            namespace: alert.namespace.clone(),
            name: alert.name.clone(),
        });
        if let Some(uid) = identity.and_then(|identity| self.cache.uid(&identity)) {
            let now = (Timestamp::now(), Instant::now());
            self.events.add(message.sequence, &dead_letter, uid, now);
        }
    }

    pub(super) fn apply_circuit(&mut self, mut circuit: Circuit) {
        if !ownership::keep_own_circuit(&self.context.origin, &mut circuit) {
            return;
        }
        match self.cache.apply_circuit(circuit) {
            Some((identity, true)) => self.queue.push_condition(&identity),
            Some((identity, false)) => self.queue.push_update(&identity, Instant::now()),
            None => {}
        }
    }

    /// The position, unless it is saved already.
    pub(super) fn unsaved_position(&self) -> Option<Position> {
        let position = (
            self.cache.since().or(self.next_read.0),
            self.events.since().or(self.next_read.1),
        );
        (position != self.saved).then_some(position)
    }

    pub(super) fn position_saved(&mut self, position: Position) {
        self.saved = position;
    }
}
