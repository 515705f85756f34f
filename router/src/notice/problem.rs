//! Why the Provider of a notice cannot be used. Pure.

use tidings_core::model::notice::NoticeKind;
use tidings_core::runtime::config::{FallbackSettings, ProviderName, WatchdogSettings};
use tidings_rules::{Family, Problem, Rules, Severity};

/// The problems of the settings of notices with these rules.
pub fn problems(
    rules: &Rules,
    watchdog: &WatchdogSettings,
    fallback: &FallbackSettings,
) -> Vec<Problem> {
    let kinds = [
        (NoticeKind::Watchdog, &watchdog.provider),
        (NoticeKind::Fallback, &fallback.provider),
    ];
    let problems = kinds
        .into_iter()
        .filter_map(|(kind, provider)| problem(rules, kind, provider.as_ref()?));
    problems.collect()
}

/// Why a notice of this kind cannot be sent to the Provider; `None` if it can.
pub(super) fn problem(rules: &Rules, kind: NoticeKind, name: &ProviderName) -> Option<Problem> {
    let message = match rules.provider(&name.namespace, &name.name) {
        None => missing(rules, name),
        Some(provider) if provider.suspended => {
            "is suspended, so nobody gets the notice; resume it, or name another Provider"
                .to_owned()
        }
        Some(provider) => {
            let what = unfit(provider.kind.family, kind)?;
            let kind = provider.kind.name;
            format!("has type {kind}, {what}; name a Provider of another type, such as generic")
        }
    };
    Some(Problem {
        file: None,
        line: None,
        object: Some(format!("Provider {name}")),
        field: Some(format!("{kind}.provider")),
        message,
        severity: Severity::Fault,
    })
}

fn missing(rules: &Rules, name: &ProviderName) -> String {
    let mut rejected = rules.rejected().iter();
    let rejected = rejected.find(|(identity, _)| {
        let is_it = identity.namespace == name.namespace && identity.name == name.name;
        identity.kind == "Provider" && is_it
    });
    match rejected {
        Some((_, why)) => format!("is rejected: {why}"),
        None => {
            let namespace = &name.namespace;
            format!("not found; create it in namespace {namespace}, or name another Provider")
        }
    }
}

/// Why no Provider of this family can send the notice.
fn unfit(family: Family, kind: NoticeKind) -> Option<&'static str> {
    match (family, kind) {
        (Family::Message | Family::Generic, _) | (Family::Incident, NoticeKind::Fallback) => None,
        (Family::Incident, NoticeKind::Watchdog) => {
            Some("which sends only failures and their end, and the watchdog's notice is neither")
        }
        (Family::CommitStatus | Family::ChangeRequest, _) => {
            Some("which needs a commit or a change request, and a notice has none")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_rules::testing::provider;
    use tidings_rules::{Kind, Kinds, Options};

    use super::*;

    const KINDS: Kinds = &[
        Kind::new("slack", Family::Message),
        Kind::new("generic", Family::Generic),
        Kind::new("pagerduty", Family::Incident),
        Kind::new("github", Family::CommitStatus),
        Kind::new("githubpullrequestcomment", Family::ChangeRequest),
    ];

    #[test]
    fn a_provider_that_cannot_send_a_notice_is_a_problem() {
        let of_type = |kind: &Kind| provider(kind.name, kind.name).object();
        let paused = provider("paused", "slack").with("suspend", json!(true));
        let wrong = provider("wrong", "sms");
        let mut objects: Vec<_> = KINDS.iter().map(of_type).collect();
        objects.extend([paused.object(), wrong.object()]);
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        let namespace = &objects[0].identity().namespace;
        for (name, watchdog, fallback) in [
            ("slack", "", ""),
            ("generic", "", ""),
            ("pagerduty", "has type pagerduty", ""),
            ("github", "has type github", "has type github"),
            ("githubpullrequestcomment", "has type", "has type"),
            ("paused", "is suspended", "is suspended"),
            ("wrong", "is rejected", "is rejected"),
            ("none", "not found", "not found"),
        ] {
            let name = ProviderName {
                namespace: namespace.clone(),
                name: name.to_owned(),
            };
            for (kind, expected) in [
                (NoticeKind::Watchdog, watchdog),
                (NoticeKind::Fallback, fallback),
            ] {
                let problem = problem(&rules, kind, &name);
                let text = problem.map_or_else(String::new, |problem| problem.to_string());
                assert_eq!(text.is_empty(), expected.is_empty(), "{text}");
                assert!(text.contains(expected), "{text}");
                let named = format!("Provider {name}: {kind}.provider: ");
                assert!(text.is_empty() || text.starts_with(&named), "{text}");
            }
        }
    }
}
