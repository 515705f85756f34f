//! Caches the desired status of each object and the status that was last written. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;
use tidings_core::Destination;
use tidings_core::model::time::from_proto;
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, Outcome};
use tidings_rules::status_fields::{AlertStatus, CircuitState, CircuitStatus, ProviderStatus};
use tidings_rules::{Identity, RuleEntry};

use crate::status::outcomes::{OutcomeSummary, seconds, summarize};
use crate::status::ready_condition::ReadyCondition;

/// The type of the condition that Tidings writes.
const READY: &str = "Ready";

/// The status of all Alerts and Providers.
#[derive(Debug, Default)]
pub struct StatusCache {
    objects: HashMap<Identity, Object>,
    /// All recorded circuits by Provider, even if the Provider does not exist.
    circuits: HashMap<Identity, HashMap<Destination, Circuit>>,
}

#[derive(Debug)]
struct Object {
    uid: String,
    generation: Option<i64>,
    ready: ReadyCondition,
    summary: OutcomeSummary,
    /// The condition Ready that was last written.
    condition: Option<Condition>,
    /// The status that was last written, without fields of other writers.
    written: Value,
    /// The sequence in OUTCOMES of the first outcome that is not written.
    since: Option<u64>,
}

impl StatusCache {
    /// Sets the conditions. Returns the objects whose condition must be written, and the objects
    /// that were removed. `current_status` returns the status of a new object with this uid; its
    /// times are kept.
    pub fn set_conditions(
        &mut self,
        entries: &[RuleEntry],
        mut ready_conditions: HashMap<Identity, ReadyCondition>,
        current_status: impl Fn(&Identity, &str) -> Value,
    ) -> (Vec<Identity>, Vec<Identity>) {
        let mut objects = std::mem::take(&mut self.objects);
        let mut changed = Vec::new();
        for RuleEntry {
            identity,
            uid,
            generation,
            ..
        } in entries
        {
            let Some(ready_condition) = ready_conditions.remove(identity) else {
                continue;
            };
            let known = objects.remove(identity).filter(|known| known.uid == *uid);
            let mut object = known.unwrap_or_else(|| {
                Object::new(uid, &ready_condition, &current_status(identity, uid))
            });
            (object.generation, object.ready) = (*generation, ready_condition);
            if !object.is_condition_written() {
                changed.push(identity.clone());
            }
            self.objects.insert(identity.clone(), object);
        }
        (
            changed,
            objects
                .into_keys()
                .filter(|identity| !self.objects.contains_key(identity))
                .collect(),
        )
    }

    /// Replaces the last written statuses by the current ones. Returns the objects whose status
    /// differed. `current_status` returns the status of an object with this uid, if it exists.
    pub fn reload(
        &mut self,
        current_status: impl Fn(&Identity, &str) -> Option<Value>,
    ) -> Vec<Identity> {
        let mut changed = Vec::new();
        for (identity, object) in &mut self.objects {
            let Some(status) = current_status(identity, &object.uid) else {
                continue;
            };
            let written = own_fields(&status);
            if written != object.written {
                (object.condition, object.written) = (ready(&status), written);
                changed.push(identity.clone());
            }
        }
        changed
    }

    /// The uid of an object.
    pub fn uid(&self, identity: &Identity) -> Option<&str> {
        Some(&self.objects.get(identity)?.uid)
    }

    /// Applies an outcome. Returns the objects whose status it changes.
    pub fn apply_outcome(
        &mut self,
        sequence: u64,
        outcome: &Outcome,
        published: Timestamp,
    ) -> Vec<Identity> {
        let mut changed = Vec::new();
        for (identity, uid, summary) in summarize(outcome, published) {
            let Some(object) = self.objects.get_mut(&identity) else {
                continue;
            };
            if uid.is_none_or(|uid| uid == object.uid) && object.summary.merge(summary) {
                object.since.get_or_insert(sequence);
                changed.push(identity);
            }
        }
        changed
    }

    /// Applies a circuit. Returns the Provider whose status it changes, and whether calls to this
    /// Provider stopped or resumed.
    pub fn apply_circuit(&mut self, circuit: Circuit) -> Option<(Identity, bool)> {
        let destination = Destination::of(&circuit);
        let identity = Identity {
            kind: "Provider".to_owned(),
            namespace: destination.namespace.clone(),
            name: destination.provider.clone(),
        };
        let circuits = self.circuits.entry(identity.clone()).or_default();
        let before = worst(circuits);
        circuits.insert(destination, circuit);
        let after = worst(circuits);
        let is_called = |circuit: &Option<CircuitStatus>| {
            circuit
                .as_ref()
                .is_none_or(|circuit| circuit.state == CircuitState::Closed)
        };
        let calls_changed = is_called(&before) != is_called(&after);
        (after != before && self.objects.contains_key(&identity))
            .then_some((identity, calls_changed))
    }

    /// The desired status, without fields of other writers; `None` if it is written already.
    pub fn desired(&mut self, identity: &Identity, now: Timestamp) -> Option<Value> {
        let circuit = self.circuits.get(identity).and_then(worst);
        let object = self.objects.get_mut(identity)?;
        let condition = object.condition_at(now);
        let OutcomeSummary {
            last_match,
            last_delivery,
            last_error,
        } = object.summary.clone();
        let (conditions, observed_generation) = (vec![condition], object.generation);
        let status = if identity.kind == "Alert" {
            serde_json::to_value(AlertStatus {
                conditions,
                observed_generation,
                last_handled_reconcile_at: None,
                last_match_time: last_match,
                last_delivery_time: last_delivery,
                last_error,
            })
        } else {
            serde_json::to_value(ProviderStatus {
                conditions,
                observed_generation,
                last_handled_reconcile_at: None,
                last_delivery_time: last_delivery,
                last_error,
                circuit,
            })
        };
        let status = status.unwrap_or_default();
        if status == object.written {
            object.since = None;
            return None;
        }
        Some(status)
    }

    /// Records that this status was written.
    pub fn written(&mut self, identity: &Identity, uid: &str, status: Value) {
        if let Some(object) = self
            .objects
            .get_mut(identity)
            .filter(|object| object.uid == uid)
        {
            object.condition = ready(&status);
            object.written = status;
            object.since = None;
        }
    }

    /// Records that the status cannot be written, and that the write is not retried.
    pub fn skip(&mut self, identity: &Identity) {
        if let Some(object) = self.objects.get_mut(identity) {
            object.since = None;
        }
    }

    /// The sequence in OUTCOMES of the first outcome that is not written.
    pub fn since(&self) -> Option<u64> {
        self.objects
            .values()
            .filter_map(|object| object.since)
            .min()
    }
}

impl Object {
    /// Takes over the times and the condition of the current status.
    fn new(uid: &str, ready_condition: &ReadyCondition, status: &Value) -> Self {
        let alert: AlertStatus = serde_json::from_value(status.clone()).unwrap_or_default();
        Self {
            uid: uid.to_owned(),
            generation: None,
            ready: ready_condition.clone(),
            summary: OutcomeSummary {
                last_match: alert.last_match_time,
                last_delivery: alert.last_delivery_time,
                last_error: alert.last_error,
            },
            condition: ready(status),
            written: own_fields(status),
            since: None,
        }
    }

    fn status(&self) -> &'static str {
        if self.ready.reason.is_ready() {
            "True"
        } else {
            "False"
        }
    }

    /// Whether the last written condition is the desired one.
    fn is_condition_written(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| {
            condition.status == self.status()
                && condition.reason == self.ready.reason.as_str()
                && condition.message == self.ready.message
                && condition.observed_generation == self.generation
                && self.written["observedGeneration"].as_i64() == self.generation
        })
    }

    /// The desired condition. Its transition time changes only with its status.
    fn condition_at(&self, now: Timestamp) -> Condition {
        let same = self
            .condition
            .as_ref()
            .filter(|condition| condition.status == self.status());
        Condition {
            type_: READY.to_owned(),
            status: self.status().to_owned(),
            reason: self.ready.reason.as_str().to_owned(),
            message: self.ready.message.clone(),
            observed_generation: self.generation,
            last_transition_time: same.map_or_else(
                || seconds(now),
                |condition| condition.last_transition_time.clone(),
            ),
        }
    }
}

/// The condition Ready of a status.
fn ready(status: &Value) -> Option<Condition> {
    let conditions = status["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == READY)?;
    serde_json::from_value(ready.clone()).ok()
}

/// A status without fields of other writers.
fn own_fields(status: &Value) -> Value {
    let mut own = status.clone();
    if let Some(fields) = own.as_object_mut() {
        fields.remove("lastHandledReconcileAt");
        if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.retain(|condition| condition["type"] == READY);
        }
    }
    own
}

/// The worst circuit of a Provider, from paused to open, half-open and closed. Of several in the
/// same state, the one that ends last.
fn worst(circuits: &HashMap<Destination, Circuit>) -> Option<CircuitStatus> {
    let rank = |circuit: &&Circuit| {
        let severity = match circuit.state() {
            State::Paused => 3,
            State::Open => 2,
            State::HalfOpen => 1,
            State::Closed => 0,
        };
        let time = |time: &Option<tidings_core::ProtoTimestamp>| {
            time.map_or((0, 0), |time| (time.seconds, time.nanos))
        };
        (severity, time(&circuit.until), time(&circuit.since))
    };
    // A circuit without this time never opened; it only counted failures.
    let circuit = circuits
        .values()
        .filter(|circuit| circuit.since.is_some())
        .max_by_key(rank)?;
    let time = |time| from_proto(time).map(seconds);
    let state = match circuit.state() {
        State::Closed => CircuitState::Closed,
        State::Open => CircuitState::Open,
        State::HalfOpen => CircuitState::HalfOpen,
        State::Paused => CircuitState::Paused,
    };
    let channel = circuit
        .channel
        .as_deref()
        .filter(|channel| !channel.is_empty());
    let reason = channel.map_or_else(
        || circuit.reason.clone(),
        |channel| format!("channel {channel}: {}", circuit.reason),
    );
    Some(CircuitStatus {
        state,
        since: time(circuit.since),
        until: time(circuit.until),
        reason: Some(reason)
            .filter(|_| state != CircuitState::Closed && !circuit.reason.is_empty()),
    })
}

#[cfg(test)]
mod tests;
