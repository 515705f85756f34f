use serde_json::{Value, json};

use crate::kind::{Family, Kind, Kinds};
use crate::options::Options;
use crate::snapshot::Rules;
use crate::testing::{alert, config_map, grant, provider};
use crate::{Object, Unresolved};

const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

/// An Alert of `apps` that references the Provider `platform/chat`, the Provider, and a grant.
fn rules(spec: Option<Value>) -> Rules {
    let reference = json!({"name": "chat", "namespace": "platform"});
    let template = |text: &str| config_map("texts", json!({"short": text}));
    let mut objects = vec![
        alert("a", "chat")
            .with("providerRef", reference)
            .with(
                "template",
                json!({"configMapKeyRef": {"name": "texts", "key": "short"}}),
            )
            .object(),
        provider("chat", "slack").in_namespace("platform").object(),
        template("of apps").object(),
        template("of platform").in_namespace("platform").object(),
    ];
    objects.extend(spec.map(|spec| grant("share", "platform").set("/spec", spec).object()));
    Rules::compile(&objects, KINDS, &Options::default())
}

fn problems(rules: &Rules) -> Vec<String> {
    rules.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_grant_allows_its_namespaces_and_providers() {
    for (spec, is_allowed) in [
        (json!({"from": [{"namespace": "apps"}]}), true),
        (
            json!({"from": [{"namespace": "apps"}], "providers": []}),
            true,
        ),
        (
            json!({"from": [{"namespace": "other"}, {"namespace": "apps"}], "providers": ["chat"]}),
            true,
        ),
        (json!({"from": [{"namespace": "other"}]}), false),
        (
            json!({"from": [{"namespace": "apps"}], "providers": ["pager"]}),
            false,
        ),
    ] {
        let rules = rules(Some(spec.clone()));
        let resolved = rules.resolve_for("apps", "platform", "chat");
        assert_eq!(resolved.is_ok(), is_allowed, "{spec}");
        let alert = rules.alert("apps", "a").unwrap();
        assert_eq!(rules.provider_of(alert).is_some(), is_allowed, "{spec}");
        assert_eq!(
            problems(&rules).is_empty(),
            is_allowed,
            "{spec}: {:?}",
            problems(&rules)
        );
        assert!(rules.resolve_for("platform", "platform", "chat").is_ok());
    }
}

#[test]
fn without_a_grant_the_reference_is_refused_with_what_to_create() {
    let rules = rules(None);
    let expected = "Provider platform/chat is not shared with namespace apps; create a \
                    ProviderGrant in namespace platform with spec.from: [{namespace: apps}]";
    let error = rules.resolve_for("apps", "platform", "chat").unwrap_err();
    assert_eq!(error, Unresolved::Missing(expected.into()));
    assert_eq!(
        problems(&rules),
        [format!(
            "Alert apps/a: spec.providerRef.namespace: {expected}"
        )]
    );
    let error = rules.resolve_for("apps", "platform", "secret").unwrap_err();
    assert!(
        error.to_string().contains("not shared"),
        "the error does not say whether it exists: {error}"
    );
}

#[test]
fn an_invalid_grant_grants_nothing() {
    for (spec, field) in [
        (json!({}), "spec.from"),
        (json!({"from": []}), "spec.from"),
        (
            json!({"from": [{"namespace": "*"}]}),
            "spec.from[0].namespace",
        ),
        (
            json!({"from": [{"namespace": "apps"}], "providers": [""]}),
            "spec.providers",
        ),
        (json!({"from": [{}]}), "spec.from[0].namespace"),
        (json!({"from": "apps"}), "spec.from"),
    ] {
        let rules = rules(Some(spec.clone()));
        assert!(
            rules.resolve_for("apps", "platform", "chat").is_err(),
            "{spec}"
        );
        let start = format!("ProviderGrant platform/share: {field}: ");
        let problems = problems(&rules);
        assert!(
            problems.iter().any(|it| it.starts_with(&start)),
            "{spec}: {problems:?}"
        );
    }
}

#[test]
fn an_annotation_names_the_namespace_of_the_provider() {
    let annotations = json!({"tidings.dev/provider-namespace": "platform"});
    let objects: [Object; 3] = [
        alert("a", "chat")
            .set("/metadata/annotations", annotations)
            .object(),
        provider("chat", "slack").in_namespace("platform").object(),
        grant("share", "platform").object(),
    ];
    let rules = Rules::compile(&objects, KINDS, &Options::default());
    assert_eq!(problems(&rules), Vec::<String>::new());
    let alert = rules.alert("apps", "a").unwrap();
    assert_eq!(rules.provider_of(alert).unwrap().namespace, "platform");
}

#[test]
fn the_alerts_template_is_read_from_the_alerts_namespace() {
    let rules = rules(Some(json!({"from": [{"namespace": "apps"}]})));
    let alert = rules.alert("apps", "a").unwrap();
    let own = alert.template.as_ref();
    let text = rules
        .template_for("apps", own, ("platform", "chat"))
        .unwrap();
    assert_eq!(text.as_deref(), Some("of apps"));
}
