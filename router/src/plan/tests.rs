use serde_json::{Value, json};
use tidings_core::model::metadata::of_delivery;
use tidings_core::wire::Cluster;
use tidings_core::{ObjectReference, TemplateReference};
use tidings_rules::testing::{self, provider};
use tidings_rules::{Family, Kind, Kinds, Object, Options};

use super::*;

const KINDS: Kinds = &[
    Kind::new("github", Family::CommitStatus),
    Kind {
        channel_key: "routingKey",
        ..Kind::new("pagerduty", Family::Message)
    },
];

fn alert(name: &str, provider: &str, source: Value) -> Object {
    testing::alert(name, provider)
        .with("eventSources", json!([source]))
        .object()
}

fn rules() -> Rules {
    let all = json!({"kind": "Kustomization", "name": "*"});
    let objects = [
        alert("plain", "plain", all.clone()),
        alert("expression", "expression", all),
        alert(
            "near",
            "plain",
            json!({"kind": "Kustomization", "name": "y"}),
        ),
        alert(
            "far",
            "plain",
            json!({"kind": "HelmRelease", "name": "x", "namespace": "infra"}),
        ),
        alert(
            "refused",
            "plain",
            json!({"kind": "HelmRelease", "name": ""}),
        ),
        provider("plain", "github").with("pool", "eu").object(),
        provider("expression", "github")
            .with("commitStatusExpr", "alert.metadata.name")
            .object(),
    ];
    Rules::compile(&objects, KINDS, &Options::default())
}

#[test]
fn a_delivery_has_only_the_fingerprint_of_a_channel_that_is_or_may_be_secret() {
    for (kind, expected) in [
        (Some("github"), "abc"),
        (Some("pagerduty"), "sha256:ba7816bf"),
        (None, "sha256:ba7816bf"),
    ] {
        let alert = testing::alert("a", "p").with("channel", "abc").object();
        let provider = kind.map(|kind| provider("p", kind).object());
        let objects: Vec<Object> = provider.into_iter().chain([alert]).collect();
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        let alert = rules.alert("apps", "a").unwrap();
        let planned = delivery(alert, &event("m"), "id", &rules, PlanContext::default());
        assert_eq!(planned.channel, expected, "{kind:?}");
    }
}

fn event(message: &str) -> Event {
    let object = ObjectReference {
        kind: "Kustomization".into(),
        namespace: "apps".into(),
        name: "x".into(),
        ..Default::default()
    };
    Event {
        id: "e".into(),
        severity: "error".into(),
        message: message.into(),
        involved_object: Some(object),
        ..Event::default()
    }
}

#[test]
fn each_matching_alert_gets_a_delivery_with_a_stable_id() {
    let planned = |context| plan(&rules(), &event("text"), &Clusters::new(), context);
    let context = PlanContext {
        event_sequence: 7,
        ..PlanContext::default()
    };
    let first = planned(context);
    assert_eq!(first.verdicts, [Verdict::Matched, Verdict::Matched]);
    let [expression, plain] = &first.deliveries[..] else {
        panic!("{:?}", first.deliveries)
    };
    let provider = plain.provider.as_ref().unwrap();
    assert_eq!(
        (provider.r#type.as_str(), provider.pool.as_str()),
        ("github", "eu")
    );
    assert_eq!(
        (plain.event_sequence, plain.event.as_ref()),
        (7, Some(&event("text")))
    );
    let manifest = &expression.alert.as_ref().unwrap().manifest;
    assert_eq!(
        serde_json::from_str::<Value>(manifest).unwrap()["metadata"]["name"],
        "expression"
    );
    assert_eq!(plain.alert.as_ref().unwrap().manifest, "");
    assert_eq!(planned(context).deliveries, first.deliveries);
    let replayed = planned(PlanContext {
        generation: 1,
        ..PlanContext::default()
    });
    assert!(replayed.deliveries.iter().all(|replay| {
        first
            .deliveries
            .iter()
            .all(|delivery| delivery.id != replay.id)
    }));
}

#[test]
fn a_delivery_has_the_alerts_template_and_not_the_providers() {
    let template = json!({"configMapKeyRef": {"name": "texts", "key": "short"}});
    let objects = [
        testing::alert("own", "p")
            .with("template", template)
            .object(),
        testing::alert("without", "p").object(),
        provider("p", "github")
            .with("template", json!({"inline": "of the Provider"}))
            .object(),
    ];
    let rules = Rules::compile(&objects, KINDS, &Options::default());
    let deliveries = plan(
        &rules,
        &event("text"),
        &Clusters::new(),
        PlanContext::default(),
    )
    .deliveries;
    let reference = TemplateReference {
        config_map: "texts".into(),
        key: "short".into(),
        ..Default::default()
    };
    assert_eq!(
        deliveries
            .iter()
            .map(|delivery| delivery.template.clone())
            .collect::<Vec<_>>(),
        [Some(reference), None]
    );
}

#[test]
fn deliveries_of_a_large_event_carry_an_excerpt_of_it() {
    let large = event(&"x".repeat(MAX_EVENT_BYTES));
    let plan = plan(&rules(), &large, &Clusters::new(), PlanContext::default());
    assert_eq!(plan.deliveries.len(), 2);
    for delivery in plan.deliveries {
        assert_eq!(delivery.event_bytes, large.encoded_len() as u64);
        let carried = (delivery.event, delivery.event_id.as_str(), delivery.excerpt);
        assert_eq!(carried, (None, "e", Some(excerpt(&large))));
    }
}

#[test]
fn deliveries_do_not_carry_the_large_metadata_of_their_event() {
    let mut large = event("text");
    let (key, value) = (
        format!("{}/note", flux::EVENT_GROUP),
        "n".repeat(MAX_EVENT_BYTES),
    );
    large.metadata.insert(key, value);
    let rules = rules();
    let plan = plan(&rules, &large, &Clusters::new(), PlanContext::default());
    assert_eq!(plan.deliveries.len(), 2);
    for delivery in plan.deliveries {
        assert!(delivery.encoded_len() < 5_000);
        let alert = delivery.alert.clone().unwrap_or_default();
        let alert = rules.alert(&alert.namespace, &alert.name).unwrap();
        assert_eq!(
            *of_delivery(&delivery, &large),
            metadata::merge(alert, &large)
        );
    }
}

#[test]
fn every_alert_is_explained() {
    let explained = explain(
        &rules(),
        &event("text"),
        &Clusters::new(),
        PlanContext::default(),
    );
    let actual: Vec<_> = explained
        .iter()
        .map(|it| (it.alert.as_str(), it.verdict.as_str(), it.detail.as_str()))
        .collect();
    let expected = [
        (
            "apps/expression",
            "matched",
            "the event goes to Provider apps/expression",
        ),
        (
            "apps/far",
            "no-event-source-matches",
            "no event source names Kustomization apps/x; the closest is HelmRelease infra/x",
        ),
        (
            "apps/near",
            "no-event-source-matches",
            "no event source names Kustomization apps/x; the closest is Kustomization apps/y",
        ),
        (
            "apps/plain",
            "matched",
            "the event goes to Provider apps/plain",
        ),
    ];
    assert_eq!(actual[..4], expected);
    assert!(
        actual[4].0 == "apps/refused"
            && actual[4]
                .2
                .starts_with("the Alert is rejected: spec.eventSources[0].name: is empty")
    );
}

#[test]
fn no_member_can_take_the_deliveries_of_another_cluster() {
    let rules = rules();
    let record = |name: &str| {
        let cluster = Cluster {
            name: name.to_owned(),
            binds_ids: true,
            ..Cluster::default()
        };
        (name.to_owned(), cluster)
    };
    let ids = |cluster: &str, clusters: &Clusters| -> Vec<String> {
        let event = Event {
            id: "same".to_owned(),
            cluster: cluster.to_owned(),
            ..event("m")
        };
        let plan = plan(&rules, &event, clusters, PlanContext::default());
        plan.deliveries
            .into_iter()
            .map(|planned| planned.id)
            .collect()
    };
    let members = Clusters::from([record("dev"), record("prod")]);
    let [dev, prod] = ["dev", "prod"].map(|name| ids(name, &members));
    assert!(!dev.is_empty());
    assert!(dev.iter().all(|id| !prod.contains(id)));
    // Outside of a fleet they are as in earlier versions.
    let none = Clusters::default();
    assert_eq!(ids("dev", &none), ids("default", &none));
}
