//! What the status of each object should say, and what it says as far as we know. Pure.

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

use crate::status::outcomes::{News, news, seconds};
use crate::status::ready_condition::Finding;

/// The type of our condition.
const READY: &str = "Ready";

/// Every Alert and Provider that somebody has written.
#[derive(Debug, Default)]
pub struct Board {
    objects: HashMap<Identity, Object>,
    /// Of every Provider that there is a record of, whether it exists or not.
    circuits: HashMap<Identity, HashMap<Destination, Circuit>>,
}

#[derive(Debug)]
struct Object {
    uid: String,
    generation: Option<i64>,
    finding: Finding,
    news: News,
    /// Our condition as it was last written.
    condition: Option<Condition>,
    /// Our part of the status as it was last written.
    written: Value,
    /// The sequence in OUTCOMES of the first outcome that is not written yet.
    since: Option<u64>,
}

impl Board {
    /// Takes over what was found, and tells whose condition is not as it should be, and who is no
    /// more. `read` gives the status of an object, with this uid, that is new to us; what it
    /// says of times stays.
    pub fn find(
        &mut self,
        entries: &[RuleEntry],
        mut findings: HashMap<Identity, Finding>,
        read: impl Fn(&Identity, &str) -> Value,
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
            let Some(finding) = findings.remove(identity) else {
                continue;
            };
            let known = objects.remove(identity).filter(|known| known.uid == *uid);
            let mut object =
                known.unwrap_or_else(|| Object::read(uid, &finding, &read(identity, uid)));
            (object.generation, object.finding) = (*generation, finding);
            if !object.says_so() {
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

    /// Takes over what the statuses say now, whatever was written; and tells whose is another than
    /// was thought. `read` gives the status of an object with this uid, where there is one.
    pub fn read_again(&mut self, read: impl Fn(&Identity, &str) -> Option<Value>) -> Vec<Identity> {
        let mut changed = Vec::new();
        for (identity, object) in &mut self.objects {
            let Some(status) = read(identity, &object.uid) else {
                continue;
            };
            let written = own(&status);
            if written != object.written {
                (object.condition, object.written) = (ready(&status), written);
                changed.push(identity.clone());
            }
        }
        changed
    }

    /// The uid of an object that is there.
    pub fn uid(&self, identity: &Identity) -> Option<&str> {
        Some(&self.objects.get(identity)?.uid)
    }

    /// Takes over what an outcome tells, and says for whom that was news.
    pub fn hear(&mut self, sequence: u64, outcome: &Outcome, told: Timestamp) -> Vec<Identity> {
        let mut changed = Vec::new();
        for (identity, uid, news) in news(outcome, told) {
            let Some(object) = self.objects.get_mut(&identity) else {
                continue;
            };
            if uid.is_none_or(|uid| uid == object.uid) && object.news.merge(news) {
                object.since.get_or_insert(sequence);
                changed.push(identity);
            }
        }
        changed
    }

    /// Takes over a circuit, and says whose status it changes; true where the Provider is no longer
    /// called, or is again.
    pub fn circuit(&mut self, circuit: Circuit) -> Option<(Identity, bool)> {
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
        let turns = is_called(&before) != is_called(&after);
        (after != before && self.objects.contains_key(&identity)).then_some((identity, turns))
    }

    /// Our part of the status as it should be; nothing where it is so already.
    pub fn desired(&mut self, identity: &Identity, now: Timestamp) -> Option<Value> {
        let circuit = self.circuits.get(identity).and_then(worst);
        let object = self.objects.get_mut(identity)?;
        let condition = object.condition_at(now);
        let News {
            last_match,
            last_delivery,
            last_error,
        } = object.news.clone();
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

    /// The status was written so.
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

    /// The status can't be written, and nobody waits for that.
    pub fn skip(&mut self, identity: &Identity) {
        if let Some(object) = self.objects.get_mut(identity) {
            object.since = None;
        }
    }

    /// The sequence in OUTCOMES of the first outcome that is not written yet.
    pub fn since(&self) -> Option<u64> {
        self.objects
            .values()
            .filter_map(|object| object.since)
            .min()
    }
}

impl Object {
    /// An object whose status was read. Its times are kept, and its condition is not ours to write
    /// anew while it is true.
    fn read(uid: &str, finding: &Finding, status: &Value) -> Self {
        let alert: AlertStatus = serde_json::from_value(status.clone()).unwrap_or_default();
        Self {
            uid: uid.to_owned(),
            generation: None,
            finding: finding.clone(),
            news: News {
                last_match: alert.last_match_time,
                last_delivery: alert.last_delivery_time,
                last_error: alert.last_error,
            },
            condition: ready(status),
            written: own(status),
            since: None,
        }
    }

    fn status(&self) -> &'static str {
        if self.finding.reason.is_ready() {
            "True"
        } else {
            "False"
        }
    }

    /// Whether the condition that was last written is what was found.
    fn says_so(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| {
            condition.status == self.status()
                && condition.reason == self.finding.reason.as_str()
                && condition.message == self.finding.message
                && condition.observed_generation == self.generation
                && self.written["observedGeneration"].as_i64() == self.generation
        })
    }

    /// The time of transition moves only when the status does.
    fn condition_at(&self, now: Timestamp) -> Condition {
        let same = self
            .condition
            .as_ref()
            .filter(|condition| condition.status == self.status());
        Condition {
            type_: READY.to_owned(),
            status: self.status().to_owned(),
            reason: self.finding.reason.as_str().to_owned(),
            message: self.finding.message.clone(),
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

/// Our part of a status: without what others have written.
fn own(status: &Value) -> Value {
    let mut own = status.clone();
    if let Some(fields) = own.as_object_mut() {
        fields.remove("lastHandledReconcileAt");
        if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.retain(|condition| condition["type"] == READY);
        }
    }
    own
}

/// Of all circuits of a Provider the one that is worst off: paused, open, half-open, closed; the
/// one that lasts longest.
fn worst(circuits: &HashMap<Destination, Circuit>) -> Option<CircuitStatus> {
    let rank = |circuit: &&Circuit| {
        let badness = match circuit.state() {
            State::Paused => 3,
            State::Open => 2,
            State::HalfOpen => 1,
            State::Closed => 0,
        };
        let time = |time: &Option<tidings_core::ProtoTimestamp>| {
            time.map_or((0, 0), |time| (time.seconds, time.nanos))
        };
        (badness, time(&circuit.until), time(&circuit.since))
    };
    // One that has never opened has failed now and then, which is no news.
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
