use serde_json::json;

use super::*;
use crate::kind::{Family, Kind, Kinds};
use crate::object::Object;
use crate::options::Options;
use crate::resolved::Unresolved;
use crate::testing::{alert, config_map, grant, provider, secret};
use crate::{Severity, Template};

const KINDS: Kinds = &[Kind::new("generic", Family::Generic)];

fn rules(objects: &[Object]) -> Arc<Rules> {
    Arc::new(Rules::compile(objects, KINDS, &Options::default()))
}

/// Rules with the same names in each source, and a Secret with this address.
fn with_address(address: &str) -> Arc<Rules> {
    rules(&[
        alert("a", "p").object(),
        provider("p", "generic")
            .with("secretRef", json!({"name": "s"}))
            .object(),
        secret("s", json!({"address": address})).object(),
        config_map("texts", json!({"key": address})).object(),
    ])
}

fn member(name: &str) -> RulesOrigin {
    RulesOrigin::Member(name.into())
}

fn merged(parts: &[(RulesOrigin, Arc<Rules>)]) -> Rules {
    let parts: Vec<_> = parts
        .iter()
        .map(|(origin, rules)| rules.of_origin(origin))
        .collect();
    Rules::merge(&parts, BTreeSet::new())
}

#[test]
fn equal_names_in_several_sources_are_different_objects_with_their_own_secrets() {
    let rules = merged(&[
        (RulesOrigin::Hub, with_address("https://hub.example")),
        (RulesOrigin::Folder, with_address("https://folder.example")),
        (member("eu"), with_address("https://eu.example")),
        (member("us"), with_address("https://us.example")),
    ]);
    let is_warning = |problem: &Problem| problem.severity == Severity::Warning;
    assert!(
        rules.problems().iter().all(is_warning),
        "{:?}",
        rules.problems()
    );
    assert_eq!((rules.alerts().len(), rules.providers().count()), (4, 4));
    let named: Vec<_> = rules
        .candidates("Kustomization", "apps", "x")
        .map(|alert| (alert.namespace.as_str(), alert.member.as_deref()))
        .collect();
    assert_eq!(
        named,
        [
            ("apps", None),
            ("eu:apps", Some("eu")),
            ("folder:apps", None),
            ("us:apps", Some("us")),
        ]
    );
    for (namespace, host) in [
        ("apps", "hub"),
        ("folder:apps", "folder"),
        ("eu:apps", "eu"),
        ("us:apps", "us"),
    ] {
        let address = format!("https://{host}.example");
        let alert = rules.alert(namespace, "a").unwrap();
        let provider = rules.provider_of(alert).unwrap();
        assert_eq!(provider.namespace, namespace);
        let resolved = rules.resolve_for(namespace, namespace, "p").unwrap();
        assert_eq!(
            (&resolved.address, resolved.namespace.as_str()),
            (&address, namespace)
        );
        let template = Template::ConfigMap {
            name: "texts".into(),
            key: "key".into(),
        };
        assert_eq!(rules.template(namespace, &template), Ok(address.as_str()));
    }
}

#[test]
fn the_objects_of_the_hub_are_those_of_a_single_source() {
    let alone = with_address("https://hub.example");
    assert!(Arc::ptr_eq(&alone.of_origin(&RulesOrigin::Hub), &alone));
    let rules = merged(&[
        (RulesOrigin::Hub, alone.clone()),
        (member("eu"), with_address("https://eu.example")),
    ]);
    let (own, same) = (
        rules.alert("apps", "a").unwrap(),
        alone.alert("apps", "a").unwrap(),
    );
    assert!(Arc::ptr_eq(own, same));
}

#[test]
fn a_grant_shares_providers_within_its_source_only() {
    let shared = || {
        [
            provider("p", "generic").in_namespace("shared").object(),
            grant("g", "shared").object(),
            alert("a", "p")
                .with("providerRef", json!({"name": "p", "namespace": "shared"}))
                .object(),
        ]
    };
    let without_grant = [shared()[0].clone(), shared()[2].clone()];
    let rules = merged(&[
        (RulesOrigin::Hub, rules(&without_grant)),
        (member("eu"), rules(&shared())),
    ]);
    let can_use = |namespace: &str| rules.may_use_provider(rules.alert(namespace, "a").unwrap());
    assert!(can_use("eu:apps") && !can_use("apps"));
    for (from, provider) in [
        ("apps", "eu:shared"),
        ("eu:apps", "shared"),
        ("us:apps", "eu:shared"),
    ] {
        let refused = rules.resolve_for(from, provider, "p").unwrap_err();
        assert!(
            matches!(refused, Unresolved::Missing(_)),
            "{from} {provider}"
        );
    }
}

#[test]
fn an_object_of_the_hub_cannot_pose_as_one_of_a_member() {
    let forged = rules(&[
        alert("a", "p").in_namespace("eu:apps").object(),
        provider("p", "generic").in_namespace("eu:apps").object(),
        secret("s", json!({"address": "https://forged.example"}))
            .in_namespace("eu:apps")
            .object(),
        alert("own", "p").object(),
        provider("p", "generic").object(),
    ]);
    let rules = merged(&[
        (RulesOrigin::Hub, forged),
        (member("eu"), with_address("https://eu.example")),
    ]);
    let resolved = rules.resolve("eu:apps", "p").unwrap();
    assert_eq!(resolved.address, "https://eu.example");
    assert_eq!(
        rules.alert("eu:apps", "a").unwrap().member.as_deref(),
        Some("eu")
    );
    assert!(rules.alert("apps", "own").is_some());
    let problems = rules.problems().iter();
    let refused: BTreeSet<_> = problems
        .filter(|problem| problem.severity == Severity::Error)
        .filter_map(|problem| problem.object.as_deref())
        .collect();
    let expected = ["Alert eu:apps/a", "Provider eu:apps/p", "Secret eu:apps/s"];
    assert_eq!(refused, BTreeSet::from(expected));
}

#[test]
fn problems_and_rejections_name_the_source() {
    let invalid = rules(&[
        provider("p", "pigeon").object(),
        alert("a", "gone").object(),
    ]);
    let rules = merged(&[(RulesOrigin::Hub, rules(&[])), (member("eu"), invalid)]);
    let named: BTreeSet<_> = rules
        .problems()
        .iter()
        .filter_map(|problem| problem.object.clone())
        .collect();
    assert_eq!(
        named,
        BTreeSet::from([
            "Alert eu:apps/a".to_owned(),
            "Provider eu:apps/p".to_owned()
        ])
    );
    let refused = rules.resolve("eu:apps", "p").unwrap_err();
    assert!(matches!(refused, Unresolved::Invalid(why) if why.contains("pigeon")));
    assert_eq!(rules.entries()[0].identity.namespace, "eu:apps");
}

#[test]
fn the_providers_of_an_unread_member_are_missing_for_that_reason() {
    let parts = [rules(&[]).of_origin(&RulesOrigin::Hub)];
    let rules = Rules::merge(&parts, BTreeSet::from(["eu".into()]));
    assert!(rules.is_unread("eu") && !rules.is_unread("us"));
    let why = |namespace: &str| match rules.resolve(namespace, "p").unwrap_err() {
        Unresolved::Missing(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why("eu:apps").contains("rules of cluster eu were not read"));
    assert!(why("us:apps").contains("not found"));
}
