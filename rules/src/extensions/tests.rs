use serde_json::{Value, json};

use super::*;
use crate::crd::crds;
use crate::kind::{Family, Kind, Kinds};
use crate::options::Options;
use crate::snapshot::Rules;
use crate::testing::{Manifest, alert, provider};

const KINDS: Kinds = &[
    Kind::new("slack", Family::Message),
    Kind {
        fields: &["apiAddress", "clusterField"],
        ..Kind::new("github", Family::CommitStatus)
    },
];

/// The specs of Alert and Provider in the CRDs of Flux 2.8.
const FLUX: &str = include_str!("../../../tests/kube/data/flux-crds.json");

fn annotated(manifest: Manifest, name: &str, value: impl Into<Value>) -> Manifest {
    manifest.set("/metadata/annotations", json!({name: value.into()}))
}

fn with_annotations(manifest: Manifest, annotations: Value) -> Rules {
    let objects = [manifest.set("/metadata/annotations", annotations).object()];
    Rules::compile(&objects, KINDS, &Options::default())
}

/// The paths of the errors; empty if the object is in effect.
fn errors(manifest: Manifest) -> Vec<String> {
    let rules = Rules::compile(&[manifest.object()], KINDS, &Options::default());
    let is_rejected = !rules.rejected().is_empty();
    let errors = rules
        .problems()
        .iter()
        .filter(|problem| problem.severity == crate::Severity::Error)
        .filter_map(|problem| problem.field.clone())
        .collect::<Vec<_>>();
    assert_eq!(is_rejected, !errors.is_empty(), "{errors:?}");
    errors
}

/// The paths of the fields of ours that Flux's schema lacks.
fn lacking(ours: &Value, flux: &Value, path: &str, found: &mut Vec<String>) {
    for (name, schema) in ours["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match &flux["properties"][name] {
            Value::Null => found.push(path),
            theirs => lacking(schema, theirs, &path, found),
        }
    }
}

/// Whether a row, or a row for each part of it, covers a field.
fn is_covered(kind: &str, path: &str, schema: &Value) -> bool {
    let has_row = Extension::of(kind).any(|row| row.field_path() == path);
    let parts = schema["properties"].as_object();
    has_row
        || parts.is_some_and(|parts| {
            parts
                .iter()
                .all(|(name, part)| is_covered(kind, &format!("{path}.{name}"), part))
        })
}

#[test]
fn every_field_that_the_schemas_of_flux_lack_has_a_row() {
    let flux: Value = serde_json::from_str(FLUX).unwrap();
    for (kind, definition) in ["Alert", "Provider"].into_iter().zip(crds(KINDS)) {
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let mut found = Vec::new();
            lacking(spec, &flux[kind], "spec", &mut found);
            assert!(!found.is_empty());
            for path in found {
                let pointer = path.replacen("spec", "", 1).replace('.', "/properties/");
                assert!(
                    is_covered(kind, &path, spec.pointer(&pointer).unwrap()),
                    "{kind}: {path} has no row in EXTENSIONS"
                );
            }
        }
    }
}

#[test]
fn the_annotation_is_the_field_in_kebab_case() {
    for row in EXTENSIONS {
        let field = row.field.replace("targetURL", "targetUrl");
        let kebab: String = field
            .chars()
            .flat_map(|letter| match letter {
                '.' => vec!['-'],
                letter if letter.is_ascii_uppercase() => vec!['-', letter.to_ascii_lowercase()],
                letter => vec![letter],
            })
            .collect();
        let expected = match kebab.as_str() {
            "template-inline" => "template",
            "template-config-map-key-ref" => "template-ref",
            "provider-ref-namespace" => "provider-namespace",
            other => other,
        };
        assert_eq!(row.name, expected);
    }
}

#[test]
fn every_example_is_valid_and_says_the_same_as_the_field() {
    for row in EXTENSIONS {
        let manifest = || match row.kind {
            "Alert" => alert("a", "p"),
            _ if ["pool", "links", "template"].contains(&row.name) => provider("p", "slack"),
            _ => provider("p", "github"),
        };
        let value = row.form.read(row.example).unwrap();
        let path = format!("/spec/{}", row.field.replace('.', "/"));
        let by_field = manifest().set(&path, value.clone());
        let by_annotation = annotated(manifest(), &row.annotation(), row.example);
        let both = annotated(by_field.clone(), &row.annotation(), row.example);
        let other = annotated(
            by_field.clone(),
            &row.annotation(),
            match row.form {
                Form::Boolean => "false",
                Form::Number => "7",
                Form::Reference => "other/key",
                _ => "error",
            },
        );
        assert_eq!(
            compiled(by_field.clone()),
            compiled(by_annotation),
            "{row:?}"
        );
        assert_eq!(compiled(by_field), compiled(both), "{row:?}");
        assert_eq!(errors(other), [row.annotation_path()], "{row:?}");
    }
}

/// What an object does, without its manifest.
fn compiled(manifest: Manifest) -> String {
    let rules = Rules::compile(&[manifest.object()], KINDS, &Options::default());
    assert_eq!(rules.rejected(), [], "{:?}", rules.problems());
    let alerts: Vec<_> = rules
        .alerts()
        .map(|alert| {
            let mut alert = alert.as_ref().clone();
            alert.manifest = Box::default();
            format!("{alert:?}")
        })
        .collect();
    let providers: Vec<_> = rules
        .providers()
        .map(|it| {
            format!(
                "{:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                it.api_address,
                it.rate_limit,
                it.max_in_flight,
                it.retry,
                it.pool,
                it.template,
                it.links,
                it.accept_redirects,
                it.cluster_field,
                it.commit_status,
                it.reason_states
            )
        })
        .collect();
    alerts.concat() + &providers.concat()
}

#[test]
fn an_annotation_is_checked_as_its_field_and_its_problem_names_it() {
    for (manifest, name, value) in [
        (alert("a", "p"), "clusters", json!("")),
        (alert("a", "p"), "clusters", json!("prod-*,,stage-*")),
        (alert("a", "p"), "clusters", json!(" , ")),
        (alert("a", "p"), "clusters", json!(["prod-*"])),
        (alert("a", "p"), "clusters", Value::Null),
        (alert("a", "p"), "channel", json!("x".repeat(2049))),
        (alert("a", "p"), "event-severity", json!("loud")),
        (alert("a", "p"), "event-severity", json!("info,loud")),
        (alert("a", "p"), "template-ref", json!("texts")),
        (alert("a", "p"), "template-ref", json!("a/b/c")),
        (alert("a", "p"), "template-ref", json!("/b")),
        (provider("p", "slack"), "rate-limit", json!("10")),
        (provider("p", "slack"), "rate-limit", json!("0/1s")),
        (provider("p", "slack"), "max-in-flight", json!("1001")),
        (provider("p", "slack"), "max-in-flight", json!("many")),
        (provider("p", "slack"), "max-in-flight", json!(5)),
        (provider("p", "slack"), "retry-min", json!("0s")),
        (provider("p", "slack"), "retry-max-age", json!("1 day")),
        (provider("p", "slack"), "pool", json!("EU")),
        (provider("p", "slack"), "links", json!("yes")),
        (
            provider("p", "slack"),
            "commit-status-id",
            json!("qualified"),
        ),
        (provider("p", "github"), "commit-status-id", json!("other")),
        (provider("p", "github"), "reason-states", json!("Deployed")),
        (provider("p", "github"), "reason-states", json!("=success")),
        (
            provider("p", "github"),
            "reason-states",
            json!("A=success,A=none"),
        ),
        (
            provider("p", "github"),
            "reason-states",
            json!("Deployed=ok"),
        ),
        (
            provider("p", "slack"),
            "reason-states",
            json!("Deployed=success"),
        ),
        (
            provider("p", "github"),
            "commit-status-target-url",
            json!("x".repeat(2049)),
        ),
    ] {
        let name = format!("{PREFIX}{name}");
        assert_eq!(
            errors(annotated(manifest, &name, value.clone())),
            [format!("metadata.annotations[{name}]")],
            "{name}: {value}"
        );
    }
}

#[test]
fn an_unknown_annotation_is_an_error_that_names_the_similar_one() {
    for (manifest, name, similar) in [
        (
            alert("a", "p"),
            "tidings.dev/cluster",
            "did you mean tidings.dev/clusters?",
        ),
        (
            alert("a", "p"),
            "tidings.dev/Clusters",
            "did you mean tidings.dev/clusters?",
        ),
        (
            alert("a", "p"),
            "Tidings.dev/clusters",
            "did you mean tidings.dev/clusters?",
        ),
        (
            provider("p", "slack"),
            "tidings.dev/rateLimit",
            "did you mean tidings.dev/rate-limit?",
        ),
        (
            provider("p", "slack"),
            "tidings.dev/clusters",
            "for Alert, not for Provider",
        ),
        (
            alert("a", "p"),
            "tidings.dev/pool",
            "for Provider, not for Alert",
        ),
        (
            alert("a", "p"),
            "tidings.dev/owner",
            "use one of tidings.dev/clusters",
        ),
    ] {
        let rules = with_annotations(manifest, json!({name: "x"}));
        assert_eq!(rules.rejected().len(), 1, "{name}");
        let problem = &rules.problems()[0];
        assert_eq!(problem.field, Some(format!("metadata.annotations[{name}]")));
        assert!(problem.message.contains(similar), "{problem}");
    }
}

#[test]
fn an_extension_with_another_prefix_is_reported() {
    for (key, is_error) in [
        ("tiding.dev/clusters", true),
        ("tidings.io/clusters", true),
        ("tidings/clusters", true),
        ("Tidings.Dev.clusters", true),
        ("tidings.dev.clusters", true),
        ("tidings-clusters", true),
        ("sub.tidings.dev/Clusters", true),
        ("notification.toolkit.fluxcd.io/clusters", true),
        ("example.org/clusters", false),
        ("tidings.io/event-severity", true),
    ] {
        let rules = with_annotations(alert("a", "p"), json!({key: "x"}));
        assert_eq!(!rules.rejected().is_empty(), is_error, "{key}");
        let problem = &rules.problems()[0];
        assert_eq!(problem.field, Some(format!("metadata.annotations[{key}]")));
        assert!(
            problem.message.contains("did you mean tidings.dev/"),
            "{problem}"
        );
    }
}

#[test]
fn a_label_with_the_name_of_an_annotation_is_an_error() {
    let labeled = |key: &str| alert("a", "p").set("/metadata/labels", json!({key: "prod"}));
    for key in ["tidings.dev/clusters", "tidings.io/clusters"] {
        assert_eq!(errors(labeled(key)), [format!("metadata.labels[{key}]")]);
    }
    for key in ["app.kubernetes.io/name", "example.org/clusters", "clusters"] {
        assert_eq!(errors(labeled(key)), [""; 0], "{key}");
    }
}

#[test]
fn a_field_of_ours_that_is_null_is_an_error_in_a_folder() {
    let compiled = |manifest: Manifest, file: Option<&str>| {
        let mut object = manifest.object();
        std::sync::Arc::make_mut(&mut object.origin).file = file.map(Into::into);
        let rules = Rules::compile(&[object], KINDS, &Options::default());
        let fields = rules.problems().iter().filter_map(|it| it.field.clone());
        fields
            .filter(|field| field != "spec.providerRef.name")
            .collect::<Vec<_>>()
    };
    let null = || alert("a", "p").with("clusters", Value::Null);
    assert_eq!(compiled(null(), Some("a.yaml")), ["spec.clusters"]);
    assert_eq!(compiled(null(), None), [""; 0], "the API server decides");
    let severity = alert("a", "p").with("eventSeverity", Value::Null);
    assert_eq!(compiled(severity, Some("a.yaml")), [""; 0]);
    let retry = provider("p", "slack").with("retry", json!({"min": null}));
    assert_eq!(compiled(retry, Some("a.yaml")), ["spec.retry.min"]);
    let template = provider("p", "slack").with("template", Value::Null);
    assert_eq!(compiled(template, Some("a.yaml")), ["spec.template"]);
}

#[test]
fn annotations_of_others_do_not_count() {
    let annotations = json!({
        "event.toolkit.fluxcd.io/summary": "x", "sub.tidings.dev/owner": "x", "tidings": "x",
        "tidings.devel/owner": "x", "example.org/pool": 7, "clusters": "x", "é": "x",
        "my-clusters": "x",
    });
    let rules = with_annotations(alert("a", "p"), annotations);
    let of_annotations: Vec<_> = rules
        .problems()
        .iter()
        .filter(|problem| problem.severity != crate::Severity::Fault)
        .collect();
    assert!(of_annotations.is_empty(), "{of_annotations:?}");
    let annotations = json!(["tidings.dev/clusters=prod"]);
    assert_eq!(
        errors(alert("a", "p").set("/metadata/annotations", annotations)),
        ["metadata.annotations"]
    );
}

#[test]
fn the_default_severity_of_the_api_server_does_not_disagree() {
    let name = format!("{PREFIX}event-severity");
    let severity = |given: &str, version: &str| {
        let manifest = alert("a", "p")
            .with("eventSeverity", given)
            .in_version(version);
        errors(annotated(manifest, &name, "warn"))
    };
    assert!(severity("info", "v1beta3").is_empty());
    assert!(severity("error", "v1beta1").is_empty());
    assert_eq!(severity("error", "v1beta3").len(), 1);
    assert_eq!(severity("info", "v1beta1").len(), 1);
}

#[test]
fn a_problem_of_two_annotations_names_one_of_them() {
    let both = json!({"tidings.dev/template": "x", "tidings.dev/template-ref": "texts/short"});
    let template = alert("a", "p").set("/metadata/annotations", both);
    assert_eq!(
        errors(template),
        ["metadata.annotations[tidings.dev/template]"]
    );
    let mixed = annotated(
        alert("a", "p").with("template", json!({"inline": "x"})),
        "tidings.dev/template-ref",
        "texts/short",
    );
    assert_eq!(errors(mixed), ["spec.template"]);
    let retry = json!({"tidings.dev/retry-min": "1h", "tidings.dev/retry-max": "1m"});
    let retry = provider("p", "slack").set("/metadata/annotations", retry);
    assert_eq!(
        errors(retry),
        ["metadata.annotations[tidings.dev/retry-min]"]
    );
    let broken = annotated(
        provider("p", "slack").with("retry", "often"),
        "tidings.dev/retry-min",
        "1s",
    );
    assert_eq!(errors(broken), ["spec.retry"]);
}
