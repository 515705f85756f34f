//! Distinguishes the kinds of rules, other kinds, and mistakes in `apiVersion` and `kind`.

use tidings_core::model::nearest::{instead, misspelled};

use crate::object::{GRANT_GROUP, GRANT_KIND, GRANT_VERSION, GROUP};

/// What a document is by its `apiVersion` and `kind`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recognized {
    /// An Alert, a Provider, a ProviderGrant, a Secret or a ConfigMap, of any version.
    Rule,
    /// A list of objects.
    List,
    /// Another kind, which is ignored.
    Other,
    /// Probably meant as a rule.
    Mistake {
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

/// The kinds that rules are made of.
const ALERT_KINDS: [&str; 2] = ["Alert", "Provider"];
const DATA_KINDS: [&str; 2] = ["Secret", "ConfigMap"];

/// Recognizes a document. `Receiver`, which is Flux's third kind of the group, is another kind.
pub(crate) fn recognize(api_version: &str, kind: &str) -> Recognized {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match (group, version) {
        (GROUP, _) => of_our_group(kind),
        (GRANT_GROUP, _) => of_the_grant_group(kind),
        ("", "v1") => of_the_core_group(kind),
        _ => of_another_group(api_version, group, kind),
    }
}

fn of_our_group(kind: &str) -> Recognized {
    match kind {
        "Alert" | "Provider" => Recognized::Rule,
        "Receiver" => Recognized::Other,
        "AlertList" | "ProviderList" | "ReceiverList" => Recognized::List,
        _ => {
            let fix = instead(kind, &ALERT_KINDS);
            mistake(
                "kind",
                format!("\"{kind}\" is not a kind of {GROUP}; {fix}"),
            )
        }
    }
}

fn of_the_grant_group(kind: &str) -> Recognized {
    match kind {
        GRANT_KIND => Recognized::Rule,
        "ProviderGrantList" => Recognized::List,
        _ => {
            let fix = instead(kind, &[GRANT_KIND]);
            mistake(
                "kind",
                format!("\"{kind}\" is not a kind of {GRANT_GROUP}; {fix}"),
            )
        }
    }
}

fn of_the_core_group(kind: &str) -> Recognized {
    match (kind, misspelled(kind, DATA_KINDS)) {
        ("Secret" | "ConfigMap", _) => Recognized::Rule,
        (_, Some(near)) => mistake(
            "kind",
            format!("\"{kind}\" is not a kind of v1; did you mean {near}?"),
        ),
        _ if kind.ends_with("List") => Recognized::List,
        _ => Recognized::Other,
    }
}

/// Other projects have kinds of these names, too, so the group must be near.
fn of_another_group(api_version: &str, group: &str, kind: &str) -> Recognized {
    let use_instead = |right: &str| {
        mistake(
            "apiVersion",
            format!("\"{api_version}\" is not supported; use {right}"),
        )
    };
    let is_ours = || group.is_empty() || group.contains("fluxcd") || is_near(group);
    if kind == GRANT_KIND {
        use_instead(&format!("{GRANT_GROUP}/{GRANT_VERSION}"))
    } else if misspelled(kind, ALERT_KINDS).is_some() && is_ours() {
        use_instead(&format!("{GROUP}/v1beta3"))
    } else if DATA_KINDS.contains(&kind) && matches!(group, "" | "core") {
        use_instead("v1")
    } else if kind.ends_with("List") {
        Recognized::List
    } else {
        Recognized::Other
    }
}

/// Whether a document without one of the two is probably meant as a rule.
pub(crate) fn is_probably_rule(api_version: &str, kind: &str) -> bool {
    let group = api_version.split('/').next().unwrap_or_default();
    matches!(group, GROUP | GRANT_GROUP)
        || kind == GRANT_KIND
        || misspelled(kind, ALERT_KINDS).is_some()
}

fn is_near(group: &str) -> bool {
    misspelled(group, [GROUP]).is_some()
}

fn mistake(field: &'static str, message: String) -> Recognized {
    Recognized::Mistake { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_rules_other_kinds_and_mistakes_are_recognized() {
        let ours = |version: &str| format!("{GROUP}/{version}");
        for (api_version, kind, expected) in [
            (ours("v1beta3").as_str(), "Alert", "rule"),
            (ours("v9").as_str(), "Provider", "rule"),
            (ours("v1").as_str(), "Receiver", "other"),
            (ours("v1beta3").as_str(), "AlertList", "list"),
            (ours("v1beta3").as_str(), "Alerts", "kind"),
            (ours("v1beta3").as_str(), "alert", "kind"),
            (ours("v1beta3").as_str(), "Silence", "kind"),
            (ours("v1beta3").as_str(), "AlertsList", "kind"),
            ("tidings.dev/v1alpha1", "ProviderGrant", "rule"),
            ("tidings.dev/v1alpha1", "ProviderGrants", "kind"),
            ("tidings.dev/v1alpha1", "ProviderGrantList", "list"),
            ("example.org/v1", "ProviderGrant", "apiVersion"),
            ("v1", "Secret", "rule"),
            ("v1", "secret", "kind"),
            ("v1", "Configmap", "kind"),
            ("v1", "ConfigMaps", "kind"),
            ("v1", "Service", "other"),
            ("v1", "List", "list"),
            ("v1", "SecretList", "list"),
            ("v1beta1", "Secret", "apiVersion"),
            ("core/v1", "ConfigMap", "apiVersion"),
            ("v1beta3", "Alert", "apiVersion"),
            (GROUP, "Alert", "apiVersion"),
            (
                "notifications.toolkit.fluxcd.io/v1beta3",
                "Provider",
                "apiVersion",
            ),
            (
                "notification.toolkit.flux.io/v1beta3",
                "Alert",
                "apiVersion",
            ),
            ("notification.fluxcd.io/v1", "Alert", "apiVersion"),
            ("pkg.crossplane.io/v1", "Provider", "other"),
            ("example.org/v1", "Alert", "other"),
            ("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "other"),
            ("kustomize.config.k8s.io/v1beta1", "Kustomization", "other"),
            ("example.org/v1", "Secret", "other"),
            ("apps/v1", "DeploymentList", "list"),
        ] {
            let found = match recognize(api_version, kind) {
                Recognized::Rule => "rule",
                Recognized::List => "list",
                Recognized::Other => "other",
                Recognized::Mistake { field, .. } => field,
            };
            assert_eq!(found, expected, "{api_version} {kind}");
        }
    }
}
