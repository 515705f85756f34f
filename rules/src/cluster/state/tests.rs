//! The state of the rules after watch events.

use std::collections::BTreeSet;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::cluster::discovery::ServedApi;
use crate::cluster::references::ReadResult;
use crate::kind::{Family, Kind};
use crate::object::GROUP;

const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

struct Sample {
    state: ClusterState,
    catalog: Catalog,
    served: ServedKind,
}

fn watch() -> WatchedKind {
    WatchedKind {
        kind: "Provider",
        namespace: None,
    }
}

/// A Provider with additional fields.
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
    /// A state with one Provider whose Secret does not exist.
    fn new() -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", "Provider"));
        let served = ServedKind {
            resource,
            has_status: true,
            lacks: None,
        };
        let mut sample = Self {
            state: ClusterState::new(KINDS, Options::default()),
            catalog: Catalog::default(),
            served,
        };
        sample.state.add_watches(&[watch()]);
        assert!(!sample.state.is_complete());
        sample.handle(Event::Init);
        sample.handle(Event::InitApply(provider("slack", json!({}), Value::Null)));
        assert!(sample.handle(Event::InitDone));
        sample.state.update_references();
        assert!(!sample.state.is_complete(), "its Secret has not been read");
        assert_eq!(
            sample.state.references.take_stale(9),
            [identity("Secret", "token")]
        );
        sample
            .state
            .references
            .record(&identity("Secret", "token"), ReadResult::NotFound);
        assert!(sample.state.is_complete());
        sample
    }

    fn handle(&mut self, event: Event<DynamicObject>) -> bool {
        self.state
            .handle_rule_event(watch(), event, &self.served, &self.catalog)
    }

    fn status(&self) -> Option<Value> {
        self.catalog
            .observed(&identity("Provider", "p"))
            .map(|object| object.status.clone())
    }
}

#[test]
fn a_status_write_changes_no_rule() {
    let mut sample = Sample::new();
    let status = json!({"observedGeneration": 1});
    assert!(!sample.handle(Event::Apply(provider(
        "slack",
        json!({"resourceVersion": "2"}),
        status.clone()
    ))));
    assert_eq!(sample.status(), Some(status));
    assert!(sample.handle(Event::Apply(provider(
        "slack",
        json!({"labels": {"a": "b"}}),
        Value::Null
    ))));
}

#[test]
fn the_last_good_state_of_a_rejected_object_keeps_its_secret() {
    let mut sample = Sample::new();
    let _ = sample.state.rules();
    assert!(sample.handle(Event::Apply(provider(
        "pigeon",
        json!({"generation": 2}),
        Value::Null
    ))));
    sample.state.update_references();
    assert!(
        sample
            .state
            .references
            .contains(&identity("Secret", "token"))
    );
    let rules = sample.state.rules();
    let entry = &rules.entries()[0];
    assert!(
        entry.in_effect
            && entry.rejection.is_some()
            && entry.generation == Some(2)
            && entry.problems.len() == 1
    );
    assert!(sample.handle(Event::Delete(provider("pigeon", json!({}), Value::Null))));
    sample.state.update_references();
    assert!(
        !sample
            .state
            .references
            .contains(&identity("Secret", "token"))
    );
    assert_eq!(sample.state.rules().entries().len(), 0);
}

#[test]
fn an_object_that_is_being_deleted_counts_as_deleted() {
    let mut sample = Sample::new();
    let deleting = json!({
        "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["finalizers.fluxcd.io"],
    });
    assert!(sample.handle(Event::Apply(provider("slack", deleting, Value::Null))));
    assert_eq!(
        (sample.state.rules().entries().len(), sample.status()),
        (0, None)
    );
    assert!(
        sample.state.next_blocked_deletion().is_some()
            && sample.state.next_blocked_deletion().is_none()
    );
    sample.state.retry_finalizers();
    assert!(sample.state.next_blocked_deletion().is_some());
    sample.handle(Event::Delete(provider("slack", json!({}), Value::Null)));
    sample.state.retry_finalizers();
    assert!(sample.state.next_blocked_deletion().is_none());
}

#[test]
fn a_finalizer_is_removed_only_while_the_object_exists_and_has_it() {
    let deleting = |finalizers: Value| {
        provider(
            "slack",
            json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": finalizers}),
            Value::Null,
        )
    };
    let mut sample = Sample::new();
    sample.handle(Event::Apply(deleting(json!([
        "finalizers.fluxcd.io",
        "example.org/a"
    ]))));
    assert!(sample.state.next_blocked_deletion().is_some());
    sample.handle(Event::Apply(deleting(json!(["example.org/a"]))));
    sample.state.retry_finalizers();
    assert!(
        sample.state.next_blocked_deletion().is_none(),
        "only another finalizer is left"
    );

    sample.handle(Event::Apply(deleting(json!(["finalizers.fluxcd.io"]))));
    sample.handle(Event::Init);
    sample.handle(Event::InitApply(deleting(json!(["finalizers.fluxcd.io"]))));
    sample.handle(Event::InitDone);
    assert!(
        sample.state.next_blocked_deletion().is_some(),
        "the object still exists"
    );
    sample.handle(Event::Init);
    sample.handle(Event::InitDone);
    sample.state.retry_finalizers();
    assert!(
        sample.state.next_blocked_deletion().is_none(),
        "a list without it"
    );
}

#[test]
fn an_unreadable_secret_is_reported() {
    let mut sample = Sample::new();
    let secret = identity("Secret", "token");
    sample.state.references.mark_all_stale();
    sample.state.references.take_stale(9);
    sample
        .state
        .references
        .record(&secret, ReadResult::Denied("forbidden".into()));
    let rules = sample.state.rules();
    assert_eq!(
        rules.problems()[0].to_string(),
        "Provider apps/p: spec.secretRef: Secret apps/token cannot be read: forbidden"
    );
    let why = rules.resolve("apps", "p").unwrap_err().to_string();
    assert_eq!(
        why,
        "spec.secretRef: Secret apps/token cannot be read: forbidden"
    );
}

/// How the API server with our CRDs serves both kinds.
fn served_api() -> ServedApi {
    let served = |kind: &str| ServedKind {
        resource: ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", kind)),
        has_status: true,
        lacks: Some(BTreeSet::new()),
    };
    ServedApi {
        alerts: served("Alert"),
        providers: served("Provider"),
        grants: None,
    }
}

/// Adds the Provider as users have changed it, and writes its record.
fn change(state: &mut ClusterState, generation: i64, spec: Value) {
    let mut object = provider("slack", json!({"generation": generation}), json!({}));
    let fields = object.data["spec"].as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    let served = served_api().providers;
    state.handle_rule_event(watch(), Event::Apply(object), &served, &Catalog::default());
    write(state);
}

fn write(state: &mut ClusterState) {
    for change in state.extension_changes(|_| true) {
        state.kept.written(change, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_field_is_not_reported_while_it_may_be_lost() {
    let mut state = ClusterState::new(KINDS, Options::default());
    state.kept.load(Vec::new());
    let later = std::time::Duration::from_secs(60);
    change(&mut state, 1, json!({"rateLimit": "1/1s"}));
    state.kept.set_schema(&served_api(), Instant::now());
    change(&mut state, 2, json!({}));
    let is_reported = |rules: &Rules| {
        let mut problems = rules.problems().iter();
        problems.any(|problem| problem.message.starts_with("was dropped"))
    };

    assert!(state.kept.will_decide());
    let rules = state.rules();
    assert!(rules.lost().is_empty() && !is_reported(&rules));

    tokio::time::advance(later).await;
    let mut lacking = served_api();
    lacking.providers.lacks = Some(BTreeSet::from(["rateLimit"]));
    state.kept.set_schema(&lacking, Instant::now());
    write(&mut state);
    let rules = state.rules();
    assert!(!rules.lost().is_empty() && is_reported(&rules), "decided");
}
