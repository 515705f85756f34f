//! Alerts that are valid but can never match, or exclude everything.
//!
//! Each is a warning: the Alert stays in effect, but its author probably expects something else.

use std::collections::HashSet;

use tidings_core::model::nearest::misspelled;
use tidings_core::model::object_name;

use crate::options::Options;
use crate::pattern;
use crate::report::Report;
use crate::resource::{AlertSpec, SourceSpec};

/// How many exclusion patterns of an Alert are tried with these messages.
const MAX_TRIED_PATTERNS: usize = 1000;

/// The kinds that Flux's controllers report about.
const FLUX_KINDS: [&str; 12] = [
    "ArtifactGenerator",
    "Bucket",
    "ExternalArtifact",
    "GitRepository",
    "HelmChart",
    "HelmRelease",
    "HelmRepository",
    "ImagePolicy",
    "ImageRepository",
    "ImageUpdateAutomation",
    "Kustomization",
    "OCIRepository",
];
/// Kinds that Kubernetes Events are usually about.
const OTHER_KINDS: [&str; 21] = [
    "ConfigMap",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "FluxInstance",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "ResourceSet",
    "Secret",
    "Service",
    "StatefulSet",
    "Terraform",
];
/// Messages of Flux's controllers. They have no word in common.
const MESSAGES: [&str; 8] = [
    "Reconciliation finished in 1.35s, next run in 10m0s",
    "stored artifact for commit 'Add dark mode'",
    "Helm upgrade succeeded for release apps/web.v7 with chart web@1.2.3",
    "Health check failed after 30s: timeout waiting for: [Deployment/apps/web: 'InProgress']",
    "failed to checkout and determine revision: unable to clone: 403",
    "Namespace/apps created\nDeployment/apps/web configured",
    "dependencies do not meet ready condition, retrying in 30s",
    "OK",
];

/// Reports what can never match.
pub(crate) fn check(spec: &AlertSpec, options: &Options, report: &mut Report<'_>) {
    if spec.event_sources.is_empty() {
        report.warn(
            "spec.eventSources",
            "is empty, so that no event matches; add an entry, such as {kind: Kustomization, \
             name: '*'}",
        );
    }
    for (position, source) in spec.event_sources.iter().enumerate() {
        let field = |name: &str| format!("spec.eventSources[{position}].{name}");
        check_kind(&source.kind, &field("kind"), report);
        check_name(source, &field("name"), report);
        check_namespace(source, options, &field("namespace"), report);
    }
    check_clusters(spec.clusters.as_deref().unwrap_or_default(), report);
    check_patterns(spec, report);
}

fn check_kind(kind: &str, field: &str, report: &mut Report<'_>) {
    let known = || FLUX_KINDS.into_iter().chain(OTHER_KINDS);
    if kind.is_empty() || known().any(|known| known == kind) {
        return;
    }
    if !kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        report.warn(
            field,
            format!(
                "\"{kind}\" matches no object: a kind has only letters and digits, and takes no \
                 pattern; add an entry for each kind, such as Kustomization"
            ),
        );
    } else if let Some(near) = misspelled(&singular(kind), known()) {
        report.warn(
            field,
            format!("\"{kind}\" probably matches no object: kinds are exact; did you mean {near}?"),
        );
    } else if kind.starts_with(|first: char| !first.is_ascii_uppercase()) {
        report.warn(
            field,
            format!(
                "\"{kind}\" probably matches no object: kinds are exact and start with a capital \
                 letter"
            ),
        );
    }
}

fn singular(kind: &str) -> String {
    match kind.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => kind.to_owned(),
    }
}

fn check_name(source: &SourceSpec, field: &str, report: &mut Report<'_>) {
    let name = source.name.as_str();
    if matches!(name, "" | "*") {
        return;
    }
    // Objects of other kinds, such as Roles, may have names with capital letters and colons.
    let is_possible = match FLUX_KINDS.contains(&source.kind.as_str()) {
        true => object_name::is_subdomain(name),
        false => {
            !name.contains(['*', '?', '[', ']', '{', '}', '/', '%', ',', '|', '^', '$'])
                && !name.contains(char::is_whitespace)
        }
    };
    if !is_possible {
        report.warn(
            field,
            format!(
                "\"{name}\" matches no object: a name is exact and takes no pattern; use '*' for \
                 all objects, or matchLabels"
            ),
        );
    }
}

fn check_namespace(source: &SourceSpec, options: &Options, field: &str, report: &mut Report<'_>) {
    let namespace = source.namespace.as_deref().unwrap_or_default();
    let own = report.object.identity().namespace;
    let may_select_all = options.namespace_wildcard_for.contains(&own);
    if namespace == "*" && !may_select_all {
        report.warn(
            field,
            format!(
                "\"*\" matches no object: only Alerts in the namespaces of \
                 --namespace-wildcard-for may select all namespaces; add {own} to them, or an \
                 entry for each namespace"
            ),
        );
    } else if !matches!(namespace, "" | "*") && !object_name::is_label(namespace) {
        report.warn(
            field,
            format!(
                "\"{namespace}\" matches no object: a namespace is exact and takes no pattern; \
                 add an entry for each namespace"
            ),
        );
    }
    if options.no_cross_namespace_refs && !namespace.is_empty() && namespace != own {
        report.warn(
            field,
            format!(
                "no event of another namespace reaches the Alert, because \
                 --no-cross-namespace-refs is set; use {own}"
            ),
        );
    }
}

/// Reports cluster patterns in another syntax than that of globs.
fn check_clusters(globs: &[String], report: &mut Report<'_>) {
    const FOREIGN: [char; 12] = ['^', '$', '|', '(', ')', '[', ']', '{', '}', '+', '!', ','];
    for (position, glob) in globs.iter().enumerate() {
        let is_foreign = glob.contains(FOREIGN)
            || glob.contains(char::is_whitespace)
            || glob.contains(".*")
            || glob.contains('\\');
        if is_foreign {
            report.warn(
                &format!("spec.clusters[{position}]"),
                format!(
                    "\"{glob}\" probably matches no cluster: only * and ? are special, and each \
                     entry is one pattern, such as prod-*"
                ),
            );
        }
    }
}

fn check_patterns(spec: &AlertSpec, report: &mut Report<'_>) {
    let included = spec.inclusion_list.as_deref().unwrap_or_default();
    let excluded = spec.exclusion_list.as_deref().unwrap_or_default();
    for (position, text) in excluded.iter().enumerate().take(MAX_TRIED_PATTERNS) {
        if pattern::is_small_and_matches_all(text, &MESSAGES) {
            report.warn(
                &format!("spec.exclusionList[{position}]"),
                format!("the pattern \"{text}\" excludes every event; remove or narrow it"),
            );
        }
    }
    let all_excluded: HashSet<_> = excluded.iter().collect();
    if !included.is_empty() && included.iter().all(|text| all_excluded.contains(text)) {
        report.warn(
            "spec.exclusionList",
            "excludes all that spec.inclusionList includes, so that no event matches; remove the \
             patterns from one of the lists",
        );
    }
    for (list, texts) in [("inclusionList", included), ("exclusionList", excluded)] {
        for (position, text) in texts.iter().enumerate() {
            if let Some(message) = never_matches(text) {
                report.warn(&format!("spec.{list}[{position}]"), message);
            }
        }
    }
}

/// Why a valid pattern probably matches nothing.
fn never_matches(pattern: &str) -> Option<&'static str> {
    let is_quoted = pattern.len() > 2 && pattern.starts_with('/') && pattern.ends_with('/');
    if pattern.ends_with('\n') {
        Some(
            "the pattern ends with a line break and probably matches no event; in YAML use |- or \
             quotes",
        )
    } else if is_quoted {
        Some("the pattern is within slashes, which are part of it; remove them")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::alert::Alert;
    use crate::resource::Version;
    use crate::testing::alert;

    /// The fields with a warning. The Alert stays in effect.
    fn doubtful(fields: Value, options: &Options) -> Vec<String> {
        let object = alert("a", "p").with_fields(fields).object();
        let mut report = Report::new(&object);
        assert!(Alert::compile(Version::V1beta3, options, &mut report).is_some());
        assert!(report.rejection().is_none(), "{:?}", report.problems);
        report
            .problems
            .into_iter()
            .filter_map(|problem| problem.field)
            .collect()
    }

    fn source(fields: Value) -> Value {
        let mut source = json!({"kind": "Kustomization", "name": "*"});
        source
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({"eventSources": [source]})
    }

    #[test]
    fn a_source_that_no_object_can_match_is_doubtful() {
        for (fields, field) in [
            (json!({"kind": "kustomization"}), "kind"),
            (json!({"kind": "Kustomizations"}), "kind"),
            (json!({"kind": "HelmRelase"}), "kind"),
            (json!({"kind": "OciRepository"}), "kind"),
            (json!({"kind": "GitRepositories"}), "kind"),
            (json!({"kind": "pod"}), "kind"),
            (json!({"kind": "*"}), "kind"),
            (json!({"kind": "Deployment.apps"}), "kind"),
            (json!({"kind": "certificate"}), "kind"),
            (json!({"name": "app-*"}), "name"),
            (json!({"name": "apps/web"}), "name"),
            (json!({"name": "Web"}), "name"),
            (json!({"name": "web-"}), "name"),
            (json!({"kind": "Pod", "name": "web-?"}), "name"),
            (json!({"namespace": "*"}), "namespace"),
            (json!({"namespace": "team-*"}), "namespace"),
            (json!({"namespace": "Team"}), "namespace"),
        ] {
            let expected = format!("spec.eventSources[0].{field}");
            let found = doubtful(source(fields.clone()), &Options::default());
            assert_eq!(found, [expected], "{fields}");
        }
        let found = doubtful(
            source(json!({"kind": "kustomization", "name": "a*", "namespace": "b*"})),
            &Options::default(),
        );
        assert_eq!(found.len(), 3, "all problems of an object: {found:?}");
        assert_eq!(
            doubtful(json!({"eventSources": []}), &Options::default()),
            ["spec.eventSources"]
        );
    }

    #[test]
    fn a_source_that_can_match_is_not_doubtful() {
        let all_namespaces = Options {
            namespace_wildcard_for: vec!["apps".into()],
            ..Options::default()
        };
        for fields in [
            json!({"kind": "Certificate", "namespace": "*"}),
            json!({"kind": "GitRepo"}),
            json!({"kind": "Pod", "name": "web-1"}),
            json!({"kind": "Role", "name": "system:node:Web"}),
            json!({"name": "web.example", "namespace": "team-a"}),
            json!({"namespace": ""}),
        ] {
            let found = doubtful(source(fields.clone()), &all_namespaces);
            assert!(found.is_empty(), "{fields}: {found:?}");
        }
    }

    #[test]
    fn another_namespace_is_doubtful_if_its_events_are_refused() {
        let options = Options {
            no_cross_namespace_refs: true,
            ..Options::default()
        };
        for (namespace, is_doubtful) in [("infra", true), ("apps", false), ("", false)] {
            let found = doubtful(source(json!({"namespace": namespace})), &options);
            assert_eq!(!found.is_empty(), is_doubtful, "{namespace}: {found:?}");
        }
    }

    #[test]
    fn patterns_that_exclude_everything_or_match_nothing_are_doubtful() {
        for (fields, field) in [
            (json!({"exclusionList": [".*"]}), "spec.exclusionList[0]"),
            (json!({"exclusionList": ["a", ""]}), "spec.exclusionList[1]"),
            (json!({"exclusionList": [".+"]}), "spec.exclusionList[0]"),
            (json!({"exclusionList": ["a*"]}), "spec.exclusionList[0]"),
            (json!({"exclusionList": ["\\S"]}), "spec.exclusionList[0]"),
            (json!({"exclusionList": ["^"]}), "spec.exclusionList[0]"),
            (
                json!({"inclusionList": ["a"], "exclusionList": ["b", "a"]}),
                "spec.exclusionList",
            ),
            (
                json!({"inclusionList": ["failed\n"]}),
                "spec.inclusionList[0]",
            ),
            (
                json!({"inclusionList": ["/failed/"]}),
                "spec.inclusionList[0]",
            ),
            (json!({"clusters": ["prod-.*"]}), "spec.clusters[0]"),
            (
                json!({"clusters": ["eu-1", "prod-*,stage-*"]}),
                "spec.clusters[1]",
            ),
            (json!({"clusters": ["!prod"]}), "spec.clusters[0]"),
            (json!({"clusters": [" "]}), "spec.clusters[0]"),
        ] {
            let found = doubtful(fields.clone(), &Options::default());
            assert_eq!(found, [field], "{fields}");
        }
        for fields in [
            json!({"exclusionList": ["failed", "^stored artifact", "no .*changes"]}),
            json!({"inclusionList": [".*"], "exclusionList": ["error.*lookup"]}),
            json!({"clusters": ["*", "prod-eu-?", "a.b"]}),
        ] {
            let found = doubtful(fields.clone(), &Options::default());
            assert!(found.is_empty(), "{fields}: {found:?}");
        }
    }
}
