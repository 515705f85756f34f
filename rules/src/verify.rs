//! Checks a snapshot as a whole: Providers with their Secrets and their types, and templates.
//!
//! The same findings are problems of a folder, conditions in a cluster, and the result of `tidings
//! check`. They reject nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::alert::Alert;
use crate::object::Identity;
use crate::problem::{Problem, Severity};
use crate::provider::Provider;
use crate::resolved::{ResolvedProvider, Unresolved};
use crate::snapshot::{RuleEntry, Rules};
use crate::template::{Escape, Template};

/// What only the code of the provider types can check. The messages contain no secrets.
pub trait TypeChecks: Send + Sync {
    /// Prepares a Provider as for an attempt, and sends nothing.
    ///
    /// # Errors
    /// The type cannot use the Provider or its Secrets.
    fn check_provider(&self, provider: Arc<ResolvedProvider>) -> Result<(), String>;

    /// Prepares a sample message to a channel, and sends nothing. The channel is that of an Alert;
    /// the empty channel is that of the Provider.
    ///
    /// # Errors
    /// The type cannot send to the channel.
    fn check_channel(&self, provider: Arc<ResolvedProvider>, channel: &str) -> Result<(), String>;

    /// Evaluates the Provider's `commitStatusExpr` for sample events, to which the metadata is
    /// added. The manifest is that of the Provider.
    ///
    /// # Errors
    /// The expression fails for every event.
    fn check_expression(
        &self,
        source: &str,
        manifest: &Value,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), String>;

    /// Renders a template for sample events, to which the metadata is added. Returns what is wrong.
    fn check_template(
        &self,
        source: &str,
        escape: Escape,
        metadata: &BTreeMap<String, String>,
    ) -> Vec<String>;
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Secret does not exist.
    MissingSecret,
    /// A ConfigMap with a template, or its key, does not exist.
    MissingTemplate,
    /// A template is invalid or fails for every sample.
    Template,
    /// The type cannot use the Provider or its Secrets.
    Configuration,
}

/// A problem that concerns more than the manifest of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The Alert or the Provider.
    pub identity: Identity,
    /// What the finding is about.
    pub subject: Subject,
    /// The problem, which is a fault.
    pub problem: Problem,
}

/// Checks all Alerts and Providers.
pub fn findings(rules: &Rules, checks: &dyn TypeChecks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let alerts = AlertIndex::of(rules);
    for entry in rules.entries() {
        let verifier = Verifier {
            rules,
            checks,
            alerts: &alerts,
            entry,
        };
        match entry.identity.kind.as_str() {
            "Alert" => verifier.alert(&mut findings),
            _ => verifier.provider(&mut findings),
        }
    }
    findings
}

/// Checks one object.
struct Verifier<'a> {
    rules: &'a Rules,
    checks: &'a dyn TypeChecks,
    alerts: &'a AlertIndex<'a>,
    entry: &'a RuleEntry,
}

/// Finds Alerts, so that the checks of large rules do not read all of them for each Provider.
struct AlertIndex<'a> {
    /// By namespace and Provider.
    users: HashMap<(&'a str, &'a str), Vec<&'a Arc<Alert>>>,
    /// By namespace and name.
    entries: HashMap<(&'a str, &'a str), &'a RuleEntry>,
}

impl<'a> AlertIndex<'a> {
    fn of(rules: &'a Rules) -> Self {
        let mut users: HashMap<_, Vec<_>> = HashMap::new();
        for alert in rules.alerts().filter(|alert| rules.may_use_provider(alert)) {
            let provider = (alert.provider_namespace.as_str(), alert.provider.as_str());
            users.entry(provider).or_default().push(alert);
        }
        let entries = rules.entries().iter();
        let entries = entries.filter(|entry| entry.identity.kind == "Alert");
        let named = |entry: &'a RuleEntry| {
            let identity = &entry.identity;
            ((identity.namespace.as_str(), identity.name.as_str()), entry)
        };
        Self {
            users,
            entries: entries.map(named).collect(),
        }
    }
}

impl<'a> Verifier<'a> {
    fn alert(&self, findings: &mut Vec<Finding>) {
        let identity = &self.entry.identity;
        if let Some(alert) = self.rules.alert(&identity.namespace, &identity.name) {
            self.template(alert.template.as_ref(), &alert.event_metadata, findings);
        }
    }

    fn provider(&self, findings: &mut Vec<Finding>) {
        let Identity {
            namespace, name, ..
        } = &self.entry.identity;
        if let Some(provider) = self.rules.provider(namespace, name) {
            let metadata = self.metadata_of_alerts(provider);
            self.template(provider.template.as_ref(), &metadata, findings);
            if let Some(pattern) = &provider.commit_status.target_url {
                let field = "spec.commitStatus.targetURL";
                self.source(pattern, Escape::Url, field, "", &metadata, findings);
            }
            if let Some(source) = provider.commit_status_expr.as_deref() {
                let manifest = &provider.manifest;
                let found = self.checks.check_expression(source, manifest, &metadata);
                let field = "spec.commitStatusExpr";
                let finding = |message| self.finding(Subject::Configuration, field, message);
                findings.extend(found.err().map(finding));
            }
        }
        if self.entry.rejection.is_none() {
            match self.resolve() {
                Some(finding) => findings.push(finding),
                None => self.channels(findings),
            }
        }
    }

    /// Problems of the channels to which the Alerts of a usable Provider send. Without a channel of
    /// an Alert, they are about the Provider.
    fn channels(&self, findings: &mut Vec<Finding>) {
        let Identity {
            namespace, name, ..
        } = &self.entry.identity;
        let (Some(provider), Ok(resolved)) = (
            self.rules.provider(namespace, name),
            self.rules.resolve(namespace, name),
        ) else {
            return;
        };
        let check = |channel: &str| self.checks.check_channel(resolved.clone(), channel).err();
        let alerts = self.alerts_of(provider);
        if alerts.iter().all(|alert| alert.channel.is_empty()) {
            findings.extend(check("").map(|message| {
                let field = self.field_of(&message);
                self.finding(Subject::Configuration, &field, message)
            }));
            return;
        }
        for alert in alerts {
            let Some(message) = check(&alert.channel) else {
                continue;
            };
            let named = (alert.namespace.as_str(), alert.name.as_str());
            let entry = self.alerts.entries.get(&named);
            findings.extend(entry.map(|entry| Finding {
                identity: entry.identity.clone(),
                subject: Subject::Configuration,
                problem: entry.problem(Severity::Fault, "spec.channel", message),
            }));
        }
    }

    /// Problems of the Secrets and of the type. A suspended Provider is not resolved, because it
    /// may be suspended for lack of a Secret.
    fn resolve(&self) -> Option<Finding> {
        let Identity {
            namespace, name, ..
        } = &self.entry.identity;
        let (subject, message) = match self.rules.resolve(namespace, name) {
            Ok(resolved) => {
                let message = self.checks.check_provider(resolved).err()?;
                (Subject::Configuration, message)
            }
            Err(Unresolved::Missing(message)) => (Subject::MissingSecret, message),
            Err(Unresolved::Invalid(message)) => (Subject::Configuration, message),
            Err(Unresolved::Suspended(_)) => return None,
        };
        let field = self.field_of(&message);
        let message = message
            .strip_prefix(&format!(
                "{} {namespace}/{name}: ",
                self.entry.identity.kind
            ))
            .unwrap_or(&message);
        let message = message
            .strip_prefix(&format!("{field}: "))
            .unwrap_or(message);
        Some(self.finding(subject, &field, message.to_owned()))
    }

    /// The field that the message is about: it begins with the field or the Secret, or names what
    /// the field holds.
    fn field_of(&self, message: &str) -> String {
        let Identity {
            namespace, name, ..
        } = &self.entry.identity;
        let Some(provider) = self.rules.provider(namespace, name) else {
            return String::new();
        };
        let references = [
            ("spec.secretRef", &provider.secret),
            ("spec.certSecretRef", &provider.cert_secret),
            ("spec.proxySecretRef", &provider.proxy_secret),
        ];
        let is_about = |secret: &Option<String>| {
            secret.as_ref().is_some_and(|secret| {
                message.starts_with(&format!("Secret {namespace}/{secret}: "))
            })
        };
        let referenced = references.into_iter().find(|(_, secret)| is_about(secret));
        let is_path = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
        let path = |start: usize| message[start..].split(|letter| !is_path(letter)).next();
        let (path, found) = match (referenced, message.find("spec.")) {
            (Some((field, _)), _) => (None, field),
            (None, Some(0)) => (path(0), ""),
            _ if message.contains("Secret") => (None, "spec.secretRef"),
            _ if message.contains("address") => (None, self.address_field(provider)),
            _ if message.contains("channel") => (None, "spec.channel"),
            (None, start) => (start.and_then(path), ""),
        };
        path.map_or(found, |path| path.trim_end_matches('.'))
            .to_owned()
    }

    /// Where the address comes from.
    fn address_field(&self, provider: &Provider) -> &'static str {
        let name = provider.secret.as_deref().unwrap_or_default();
        let secret = self.rules.secret(&provider.namespace, name);
        match secret.is_some_and(|keys| keys.get("address").or(keys.get("url")).is_some()) {
            true => "spec.secretRef",
            false => "spec.address",
        }
    }

    /// The Alerts that use the Provider.
    fn alerts_of(&self, provider: &'a Provider) -> &[&'a Arc<Alert>] {
        let provider = (provider.namespace.as_str(), provider.name.as_str());
        self.alerts.users.get(&provider).map_or(&[], Vec::as_slice)
    }

    /// What the Alerts that use the Provider's template add to the metadata.
    fn metadata_of_alerts(&self, provider: &'a Provider) -> BTreeMap<String, String> {
        self.alerts_of(provider)
            .iter()
            .filter(|alert| alert.template.is_none())
            .flat_map(|alert| alert.event_metadata.clone())
            .collect()
    }

    fn template(
        &self,
        template: Option<&Template>,
        metadata: &BTreeMap<String, String>,
        findings: &mut Vec<Finding>,
    ) {
        let namespace = &self.entry.identity.namespace;
        match template {
            None => {}
            Some(Template::Inline(source)) => {
                let field = "spec.template.inline";
                self.source(source, Escape::None, field, "", metadata, findings);
            }
            Some(reference @ Template::ConfigMap { name, key }) => {
                let field = "spec.template.configMapKeyRef";
                match self.rules.template(namespace, reference) {
                    Ok(source) => {
                        let origin = format!("key {key} of ConfigMap {namespace}/{name}: ");
                        self.source(source, Escape::None, field, &origin, metadata, findings);
                    }
                    Err(unresolved) => {
                        let message = unresolved.to_string();
                        let message = message
                            .strip_prefix(&format!("{field}: "))
                            .unwrap_or(&message);
                        findings.push(self.finding(
                            Subject::MissingTemplate,
                            field,
                            message.to_owned(),
                        ));
                    }
                }
            }
        }
    }

    fn source(
        &self,
        source: &str,
        escape: Escape,
        field: &str,
        origin: &str,
        metadata: &BTreeMap<String, String>,
        findings: &mut Vec<Finding>,
    ) {
        // A syntax error in the manifest is known already.
        let is_known = |problem: &Problem| problem.field.as_deref() == Some(field);
        if self.entry.problems.iter().any(is_known) {
            return;
        }
        for message in self.checks.check_template(source, escape, metadata) {
            findings.push(self.finding(Subject::Template, field, format!("{origin}{message}")));
        }
    }

    fn finding(&self, subject: Subject, field: &str, message: String) -> Finding {
        Finding {
            identity: self.entry.identity.clone(),
            subject,
            problem: self.entry.problem(Severity::Fault, field, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::{Family, Kind, Kinds};
    use crate::object::Object;
    use crate::options::Options;
    use crate::testing::{alert, config_map, provider, secret};

    const KINDS: Kinds = &[
        Kind {
            keys: &["token", "address"],
            ..Kind::new("slack", Family::Message)
        },
        Kind {
            keys: &["token"],
            ..Kind::new("github", Family::CommitStatus)
        },
    ];

    /// A type that needs a token, and templates that must not contain `oops`.
    struct Strict;

    impl TypeChecks for Strict {
        fn check_provider(&self, provider: Arc<ResolvedProvider>) -> Result<(), String> {
            match provider.secret.token() {
                Some(_) => Ok(()),
                None => Err("the Secret of spec.secretRef needs the key token; add it".to_owned()),
            }
        }

        fn check_channel(&self, provider: Arc<ResolvedProvider>, of: &str) -> Result<(), String> {
            let channel = if of.is_empty() { &provider.channel } else { of };
            match channel {
                "bad" => Err("no topic: spec.channel must be CHANNEL/TOPIC".to_owned()),
                _ => Ok(()),
            }
        }

        fn check_expression(
            &self,
            source: &str,
            _: &Value,
            metadata: &BTreeMap<String, String>,
        ) -> Result<(), String> {
            match source {
                "oops" if !metadata.contains_key("oops") => Err("oops is undefined".to_owned()),
                _ => Ok(()),
            }
        }

        fn check_template(
            &self,
            source: &str,
            _: Escape,
            metadata: &BTreeMap<String, String>,
        ) -> Vec<String> {
            let is_wrong = source.contains("oops") && !metadata.contains_key("oops");
            is_wrong
                .then(|| "oops is undefined".to_owned())
                .into_iter()
                .collect()
        }
    }

    /// The object, the field and the subject of each finding, for objects of the file `a.yaml`.
    fn found(objects: impl IntoIterator<Item = Object>) -> Vec<(String, String, Subject)> {
        let in_file = objects.into_iter().map(|mut object| {
            Arc::make_mut(&mut object.origin).file = Some("a.yaml".into());
            object
        });
        let objects: Vec<_> = in_file.collect();
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        let before = rules.problems().len();
        let findings = findings(&rules, &Strict);
        let verified = rules.verified(&Strict);
        assert_eq!(verified.problems().len(), before + findings.len());
        findings
            .into_iter()
            .map(
                |Finding {
                     identity,
                     subject,
                     problem,
                 }| {
                    assert_eq!(problem.file.as_deref(), Some("a.yaml"));
                    assert_eq!(problem.object, Some(identity.to_string()));
                    (identity.name, problem.field.unwrap_or_default(), subject)
                },
            )
            .collect()
    }

    fn one(name: &str, field: &str, subject: Subject) -> Vec<(String, String, Subject)> {
        vec![(name.to_owned(), field.to_owned(), subject)]
    }

    #[test]
    fn a_provider_that_cannot_work_is_found_with_its_field() {
        let with_secret = || provider("p", "slack").with("secretRef", json!({"name": "s"}));
        assert_eq!(
            found([with_secret().object()]),
            one("p", "spec.secretRef", Subject::MissingSecret)
        );
        assert_eq!(
            found([with_secret().object(), secret("s", json!({})).object()]),
            one("p", "spec.secretRef", Subject::Configuration)
        );
        let token = || secret("s", json!({"token": "t"})).object();
        assert_eq!(found([with_secret().object(), token()]), []);
        let proxy = with_secret().with("proxySecretRef", json!({"name": "proxy"}));
        let keyless = secret("proxy", json!({})).object();
        assert_eq!(
            found([proxy.object(), token(), keyless]),
            one("p", "spec.proxySecretRef", Subject::Configuration)
        );
        assert_eq!(found([with_secret().with("suspend", true).object()]), []);
        assert_eq!(found([with_secret().with("type", "pigeon").object()]), []);
    }

    #[test]
    fn a_channel_is_found_at_the_object_that_gives_it() {
        let token = || secret("s", json!({"token": "t"})).object();
        let sending = |channel: &str| {
            let provider = provider("p", "slack").with("secretRef", json!({"name": "s"}));
            provider.with("channel", channel).object()
        };
        let alert = |name: &str, channel| alert(name, "p").with("channel", channel).object();
        let at = |name: &str| one(name, "spec.channel", Subject::Configuration);
        assert_eq!(found([sending("bad"), token()]), at("p"), "no Alert");
        assert_eq!(found([sending("bad"), token(), alert("a", "")]), at("p"));
        assert_eq!(found([sending("bad"), token(), alert("a", "ok")]), []);
        assert_eq!(found([sending("ok"), token(), alert("a", "bad")]), at("a"));
        let mixed = [sending("bad"), token(), alert("a", "ok"), alert("b", "")];
        assert_eq!(found(mixed), at("b"), "the Alert that gives none");
    }

    #[test]
    fn an_expression_is_checked_also_without_the_secret() {
        let status = provider("p", "github").with("secretRef", json!({"name": "s"}));
        let status = || status.clone().with("commitStatusExpr", "oops").object();
        let expected = one("p", "spec.commitStatusExpr", Subject::Configuration);
        let token = || secret("s", json!({"token": "t"})).object();
        assert_eq!(found([status(), token()]), expected);
        assert_eq!(found([status()]).len(), 2, "and the missing Secret");
        let metadata = alert("a", "p").with("eventMetadata", json!({"oops": "x"}));
        assert_eq!(found([status(), token(), metadata.object()]), []);
    }

    #[test]
    fn templates_are_found_wherever_they_are() {
        let token = || secret("s", json!({"token": "t"})).object();
        let good = || provider("p", "slack").with("secretRef", json!({"name": "s"}));
        let reference = json!({"configMapKeyRef": {"name": "texts", "key": "k"}});
        let inline = json!({"inline": "{{ oops }}"});
        let with_alert = |template| alert("a", "p").with("template", template).object();
        assert_eq!(
            found([good().object(), token(), with_alert(inline.clone())]),
            one("a", "spec.template.inline", Subject::Template)
        );
        assert_eq!(
            found([good().object(), token(), with_alert(reference.clone())]),
            one(
                "a",
                "spec.template.configMapKeyRef",
                Subject::MissingTemplate
            )
        );
        let texts = config_map("texts", json!({"k": "{{ oops }}"})).object();
        assert_eq!(
            found([good().with("template", reference).object(), token(), texts]),
            one("p", "spec.template.configMapKeyRef", Subject::Template)
        );
        let syntax = json!({"inline": "{{ oops"});
        assert_eq!(
            found([good().object(), token(), with_alert(syntax)]),
            [],
            "known already"
        );
        let metadata = alert("a", "p")
            .with("eventMetadata", json!({"oops": "x"}))
            .object();
        assert_eq!(
            found([good().with("template", inline).object(), token(), metadata]),
            [],
            "the Alert adds what the template needs"
        );
    }
}
