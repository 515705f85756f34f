//! What follows from what a cluster tells.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::*;
use crate::cluster::references::Answer;
use crate::kind::{Family, Kind};
use crate::object::GROUP;

const KINDS: Kinds = &[Kind {
    name: "slack",
    family: Family::Message,
}];

struct Sample {
    state: State,
    catalog: Catalog,
    served: Served,
}

fn source() -> Source {
    Source {
        kind: "Provider",
        namespace: None,
    }
}

/// A Provider with these fields over those that it must have.
fn provider(kind: &str, metadata: Value, status: Value) -> DynamicObject {
    let mut value = json!({
        "metadata": {"name": "p", "namespace": "apps", "uid": "u", "generation": 1},
        "spec": {"type": kind, "secretRef": {"name": "token"}},
        "status": status,
    });
    value["metadata"]
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn identity(kind: &str, name: &str) -> Identity {
    Identity {
        kind: kind.into(),
        namespace: "apps".into(),
        name: name.into(),
    }
}

impl Sample {
    /// One Provider whose Secret does not exist.
    fn new() -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", "Provider"));
        let served = Served {
            resource,
            has_status: true,
        };
        let mut sample = Self {
            state: State::new(KINDS, Options::default()),
            catalog: Catalog::default(),
            served,
        };
        sample.state.expect(&[source()]);
        assert!(!sample.state.is_complete());
        sample.tell(Event::Init);
        sample.tell(Event::InitApply(provider("slack", json!({}), Value::Null)));
        assert!(sample.tell(Event::InitDone));
        sample.state.refer();
        assert!(
            !sample.state.is_complete(),
            "its Secret has not been looked for"
        );
        assert_eq!(
            sample.state.named.take_stale(9),
            [identity("Secret", "token")]
        );
        sample
            .state
            .named
            .put(&identity("Secret", "token"), Answer::Missing);
        assert!(sample.state.is_complete());
        sample
    }

    fn tell(&mut self, event: Event<DynamicObject>) -> bool {
        self.state
            .rule(source(), event, &self.served, &self.catalog)
    }

    fn status(&self) -> Option<Value> {
        self.catalog
            .seen(&identity("Provider", "p"))
            .map(|seen| seen.status.clone())
    }
}

#[test]
fn a_status_is_noted_and_changes_no_rule() {
    let mut sample = Sample::new();
    let status = json!({"observedGeneration": 1});
    assert!(!sample.tell(Event::Apply(provider(
        "slack",
        json!({"resourceVersion": "2"}),
        status.clone()
    ))));
    assert_eq!(sample.status(), Some(status));
    assert!(sample.tell(Event::Apply(provider(
        "slack",
        json!({"labels": {"a": "b"}}),
        Value::Null
    ))));
}

#[test]
fn what_a_refused_object_was_keeps_its_secret() {
    let mut sample = Sample::new();
    let _ = sample.state.rules();
    assert!(sample.tell(Event::Apply(provider(
        "pigeon",
        json!({"generation": 2}),
        Value::Null
    ))));
    sample.state.refer();
    assert!(sample.state.named.is_named(&identity("Secret", "token")));
    let rules = sample.state.rules();
    let entry = &rules.entries()[0];
    assert!(
        entry.in_force
            && entry.refusal.is_some()
            && entry.generation == Some(2)
            && entry.problems.len() == 1
    );
    assert!(sample.tell(Event::Delete(provider("pigeon", json!({}), Value::Null))));
    sample.state.refer();
    assert!(!sample.state.named.is_named(&identity("Secret", "token")));
    assert_eq!(sample.state.rules().entries().len(), 0);
}

#[test]
fn what_is_being_deleted_counts_as_deleted_and_is_released_once() {
    let mut sample = Sample::new();
    let leaving = json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["finalizers.fluxcd.io"]});
    assert!(sample.tell(Event::Apply(provider("slack", leaving, Value::Null))));
    assert_eq!(
        (sample.state.rules().entries().len(), sample.status()),
        (0, None)
    );
    assert!(sample.state.next_waiting().is_some() && sample.state.next_waiting().is_none());
    sample.state.release_again();
    assert!(sample.state.next_waiting().is_some());
    sample.tell(Event::Delete(provider("slack", json!({}), Value::Null)));
    sample.state.release_again();
    assert!(sample.state.next_waiting().is_none());
}

#[test]
fn what_waits_for_others_only_or_went_unseen_is_released_no_more() {
    let leaving = |finalizers: Value| {
        provider(
            "slack",
            json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": finalizers}),
            Value::Null,
        )
    };
    let mut sample = Sample::new();
    sample.tell(Event::Apply(leaving(json!([
        "finalizers.fluxcd.io",
        "example.org/a"
    ]))));
    assert!(sample.state.next_waiting().is_some());
    sample.tell(Event::Apply(leaving(json!(["example.org/a"]))));
    sample.state.release_again();
    assert!(
        sample.state.next_waiting().is_none(),
        "ours is gone, another's is not"
    );

    sample.tell(Event::Apply(leaving(json!(["finalizers.fluxcd.io"]))));
    sample.tell(Event::Init);
    sample.tell(Event::InitApply(leaving(json!(["finalizers.fluxcd.io"]))));
    sample.tell(Event::InitDone);
    assert!(sample.state.next_waiting().is_some(), "it is still there");
    sample.tell(Event::Init);
    sample.tell(Event::InitDone);
    sample.state.release_again();
    assert!(sample.state.next_waiting().is_none(), "a list without it");
}

#[test]
fn a_secret_that_can_not_be_read_is_told() {
    let mut sample = Sample::new();
    let secret = identity("Secret", "token");
    sample.state.named.doubt();
    sample.state.named.take_stale(9);
    sample
        .state
        .named
        .put(&secret, Answer::Refused("forbidden".into()));
    let rules = sample.state.rules();
    assert_eq!(
        rules.problems()[0].to_string(),
        "Secret apps/token: can't be read: forbidden"
    );
    let why = rules.resolve("apps", "p").unwrap_err().to_string();
    assert_eq!(
        why,
        "Secret apps/token, which spec.secretRef names, can't be read: forbidden"
    );
}
