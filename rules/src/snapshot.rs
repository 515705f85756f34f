//! An immutable snapshot of all compiled rules. Every change creates a new snapshot.

mod merge;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use crate::alert::Alert;
use crate::check::{Checked, Resource, check};
use crate::grant::ProviderGrant;
use crate::index::Index;
use crate::kind::Kinds;
use crate::last_good::LastGood;
use crate::object::{Identity, Object, Origin};
use crate::options::Options;
use crate::pattern_memory::Automata;
use crate::problem::{Problem, Severity};
use crate::provider::Provider;
use crate::resolved::{ResolvedProvider, SecretData, Unresolved};
use crate::secret_keys;
use crate::template::Template;
use crate::verify::{self, TypeChecks};

/// An immutable snapshot of all compiled rules.
///
/// # Guarantees
/// A snapshot never changes. Equal input gives equal rules in the same order.
#[derive(Debug, Default)]
pub struct Rules {
    alerts: Vec<Arc<Alert>>,
    index: Index,
    providers: ByName<ProviderEntry>,
    secrets: ByName<Arc<SecretData>>,
    config_maps: ByName<Arc<BTreeMap<String, String>>>,
    /// The grants by namespace.
    grants: HashMap<String, Vec<Arc<ProviderGrant>>>,
    rejected: Vec<(Identity, String)>,
    unreadable: BTreeMap<Identity, String>,
    entries: Vec<RuleEntry>,
    problems: Vec<Problem>,
    lost: Vec<LostExtensions>,
    options: Options,
    /// The members whose rules are missing, because they were never read.
    unread: BTreeSet<Arc<str>>,
    #[expect(dead_code, reason = "a value that only keeps others alive")]
    automata: Automata,
    #[expect(dead_code, reason = "keeps the patterns of merged rules alive")]
    parts: Vec<Arc<Rules>>,
}

/// An object that had extension fields, which the API server has dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostExtensions {
    /// Kind, namespace and name.
    pub identity: Identity,
    /// The uid of the object.
    pub uid: String,
    /// The paths of the fields below `spec`, sorted.
    pub fields: Vec<String>,
    /// The clusters of an Alert that lost `clusters`. They stay in effect.
    pub clusters: Option<Vec<String>>,
    /// The selector of an Alert that lost `clusterSelector`, as text. It stays in effect.
    pub cluster_selector: Option<String>,
}

impl LostExtensions {
    /// The lost restrictions that stay in effect, for people; empty without one.
    pub fn restrictions(&self) -> Vec<String> {
        let clusters = self.clusters.iter();
        let clusters = clusters.map(|clusters| format!("clusters {}", clusters.join(", ")));
        let selector = self.cluster_selector.iter();
        let selector = selector.map(|selector| format!("clusterSelector {selector}"));
        clusters.chain(selector).collect()
    }
}

/// An Alert or a Provider, valid or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// Kind, namespace and name.
    pub identity: Identity,
    /// The origin of the manifest.
    pub origin: Arc<Origin>,
    /// The uid, or a UUIDv5 if the manifest has none.
    pub uid: String,
    /// `metadata.generation` of the version that the problems describe.
    pub generation: Option<i64>,
    /// Why the object is rejected.
    pub rejection: Option<String>,
    /// Whether the object, or its last good state, is in effect.
    pub in_effect: bool,
    /// The problems of the object, including a missing Provider of an Alert, and what a Provider's
    /// type ignores in its Secret. [`Rules::resolve`] reports the other problems of Secrets.
    pub problems: Vec<Problem>,
}

impl RuleEntry {
    /// Creates a problem in a field of this object; the empty field is the object as a whole.
    pub fn problem(&self, severity: Severity, field: &str, message: String) -> Problem {
        Problem {
            object: Some(self.identity.to_string()),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            ..self.origin.problem(severity, field, message)
        }
    }
}

/// A Provider and its resolution, which is computed once per snapshot.
#[derive(Debug)]
pub(crate) struct ProviderEntry {
    pub(crate) provider: Arc<Provider>,
    pub(crate) resolved: OnceLock<Result<Arc<ResolvedProvider>, Unresolved>>,
}

/// A map by namespace and name.
#[derive(Debug)]
struct ByName<T>(HashMap<String, HashMap<String, T>>);

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByName<T> {
    fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.0.get(namespace)?.get(name)
    }

    fn insert(&mut self, identity: Identity, value: T) {
        self.0
            .entry(identity.namespace)
            .or_default()
            .insert(identity.name, value);
    }
}

impl Rules {
    /// Compiles objects. Rejected objects are not in effect; see [`Rules::problems`].
    pub fn compile(objects: &[Object], kinds: Kinds, options: &Options) -> Self {
        let (mut checked, problems) = check(objects, kinds, options);
        let automata = LastGood::default().restore(&mut checked, options);
        Self::new(checked, problems, options).with_automata(automata)
    }

    /// Creates a snapshot of checked objects and of additional problems.
    pub fn new(checked: Vec<Checked>, problems: Vec<Problem>, options: &Options) -> Self {
        let mut rules = Self {
            problems,
            options: options.clone(),
            ..Self::default()
        };
        let written: HashSet<Identity> = checked
            .iter()
            .map(|checked| checked.identity.clone())
            .collect();
        for checked in &checked {
            if let Some(Resource::Grant(grant)) = &checked.resource {
                let of_namespace = rules.grants.entry(grant.namespace.clone()).or_default();
                of_namespace.push(grant.clone());
            }
        }
        let mut secret_warnings = Vec::new();
        for mut checked in checked {
            if let Some(warning) = checked.secret_warning.take() {
                secret_warnings.push((rules.entries.len(), warning));
            }
            let own = checked.identity.namespace.clone();
            let is_refused =
                |provider: &Identity| !rules.is_granted(&own, &provider.namespace, &provider.name);
            if checked.provider.as_ref().is_some_and(is_refused) {
                checked.problems.extend(checked.provider_not_granted.take());
            } else if checked
                .provider
                .as_ref()
                .is_some_and(|provider| !written.contains(provider))
            {
                checked.problems.extend(checked.provider_not_found.take());
            }
            rules.problems.extend(checked.problems.iter().cloned());
            rules.add(checked);
        }
        for (position, warning) in secret_warnings {
            rules.check_secret(position, &warning);
        }
        rules.sort_problems();
        rules.sort_alerts();
        rules.index = Index::new(&rules.alerts);
        rules
    }

    /// Adds what the checks of the types find to the problems.
    pub fn verified(mut self, checks: &dyn TypeChecks) -> Self {
        let mut findings: HashMap<Identity, Vec<Problem>> = HashMap::new();
        for finding in verify::findings(&self, checks) {
            self.problems.push(finding.problem.clone());
            let of_object = findings.entry(finding.identity).or_default();
            of_object.push(finding.problem);
        }
        for entry in &mut self.entries {
            let found = findings.remove(&entry.identity);
            entry.problems.extend(found.unwrap_or_default());
        }
        self.sort_problems();
        self
    }

    fn sort_alerts(&mut self) {
        self.alerts.sort_by(|left, right| {
            (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name))
        });
    }

    fn sort_problems(&mut self) {
        self.problems
            .sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    }

    /// Keeps the compiled patterns of the Alerts in effect.
    pub(crate) fn with_automata(self, automata: Automata) -> Self {
        Self { automata, ..self }
    }

    /// Adds the objects that could not be read, with the reason for each.
    pub(crate) fn with_unreadable(self, unreadable: BTreeMap<Identity, String>) -> Self {
        Self { unreadable, ..self }
    }

    /// Adds the objects that lost extensions.
    pub(crate) fn with_lost(self, lost: Vec<LostExtensions>) -> Self {
        Self { lost, ..self }
    }

    /// The objects that lost extensions. Always empty for a folder.
    pub fn lost(&self) -> &[LostExtensions] {
        &self.lost
    }

    /// Why an object could not be read.
    pub(crate) fn unreadable(&self, identity: &Identity) -> Option<&str> {
        self.unreadable.get(identity).map(String::as_str)
    }

    fn add(&mut self, checked: Checked) {
        let Checked {
            identity,
            origin,
            uid,
            generation,
            resource,
            rejection,
            problems,
            ..
        } = checked;
        if matches!(identity.kind.as_str(), "Alert" | "Provider") {
            let (identity, rejection, in_effect) =
                (identity.clone(), rejection.clone(), resource.is_some());
            self.entries.push(RuleEntry {
                identity,
                origin,
                uid,
                generation,
                rejection,
                in_effect,
                problems,
            });
        }
        match (resource, rejection) {
            (Some(Resource::Alert(alert)), _) => self.alerts.push(alert),
            (Some(Resource::Provider(provider)), _) => {
                self.providers.insert(
                    identity,
                    ProviderEntry {
                        provider,
                        resolved: OnceLock::new(),
                    },
                );
            }
            (Some(Resource::Secret(data)), _) => self.secrets.insert(identity, data),
            (Some(Resource::ConfigMap(data)), _) => self.config_maps.insert(identity, data),
            // They are added first.
            (Some(Resource::Grant(_)), _) => {}
            (None, rejection) => self
                .rejected
                .push((identity, rejection.unwrap_or_default())),
        }
    }

    /// Adds warnings about the Secret of the Provider at this position of the entries. `blank` says
    /// where.
    fn check_secret(&mut self, position: usize, blank: &Problem) {
        let entry = &mut self.entries[position];
        let namespace = &entry.identity.namespace;
        let Some(ProviderEntry { provider, .. }) =
            self.providers.get(namespace, &entry.identity.name)
        else {
            return;
        };
        let name = provider.secret.as_deref().unwrap_or_default();
        let Some(secret) = self.secrets.get(namespace, name) else {
            return;
        };
        for message in secret_keys::warnings(&provider.kind, secret) {
            let problem = Problem {
                message: format!("Secret {namespace}/{name}: {message}"),
                ..blank.clone()
            };
            entry.problems.push(problem.clone());
            self.problems.push(problem);
        }
    }

    /// Every Alert and Provider, valid or rejected.
    pub fn entries(&self) -> &[RuleEntry] {
        &self.entries
    }

    /// The Alerts in effect, sorted by namespace and name.
    pub fn alerts(&self) -> impl ExactSizeIterator<Item = &Arc<Alert>> {
        self.alerts.iter()
    }

    /// The Alerts with an event source for this object, sorted by namespace and name. Other
    /// criteria of the Alerts are not checked.
    pub fn candidates(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &Arc<Alert>> {
        self.index
            .find(kind, namespace, name)
            .into_iter()
            .map(|position| &self.alerts[position])
    }

    /// An Alert in effect.
    pub fn alert(&self, namespace: &str, name: &str) -> Option<&Arc<Alert>> {
        let position = self.alerts.binary_search_by(|alert| {
            (alert.namespace.as_str(), alert.name.as_str()).cmp(&(namespace, name))
        });
        Some(&self.alerts[position.ok()?])
    }

    /// A Provider in effect.
    pub fn provider(&self, namespace: &str, name: &str) -> Option<&Arc<Provider>> {
        Some(&self.providers.get(namespace, name)?.provider)
    }

    /// Whether Alerts of the namespace `from` may reference a Provider.
    pub(crate) fn is_granted(&self, from: &str, namespace: &str, provider: &str) -> bool {
        let grants = || self.grants.get(namespace).into_iter().flatten();
        from == namespace || grants().any(|grant| grant.allows(from, provider))
    }

    /// Whether the Provider of an Alert is in the Alert's namespace or shared with it.
    pub fn may_use_provider(&self, alert: &Alert) -> bool {
        self.is_granted(&alert.namespace, &alert.provider_namespace, &alert.provider)
    }

    /// The Provider of an Alert, in effect; `None` if it does not exist or is not shared with the
    /// Alert's namespace.
    pub fn provider_of(&self, alert: &Alert) -> Option<&Arc<Provider>> {
        let provider = self.provider(&alert.provider_namespace, &alert.provider);
        provider.filter(|_| self.may_use_provider(alert))
    }

    /// The Providers in effect, in no order.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers
            .0
            .values()
            .flat_map(HashMap::values)
            .map(|entry| &entry.provider)
    }

    /// The keys of a Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&SecretData> {
        self.secrets.get(namespace, name).map(Arc::as_ref)
    }

    /// The text of a template of an Alert or a Provider in this namespace.
    ///
    /// # Errors
    /// The ConfigMap or its key does not exist.
    pub fn template<'a>(
        &'a self,
        namespace: &str,
        template: &'a Template,
    ) -> Result<&'a str, Unresolved> {
        match template {
            Template::Inline(text) => Ok(text),
            Template::ConfigMap { name, key } => {
                let missing = |what: &str| {
                    Unresolved::Missing(format!(
                        "spec.template.configMapKeyRef: {what}; create it in namespace {namespace}"
                    ))
                };
                let config_map = format!("ConfigMap {namespace}/{name}");
                let data = self
                    .config_maps
                    .get(namespace, name)
                    .ok_or_else(|| missing(&format!("{config_map} not found")))?;
                data.get(key)
                    .map(String::as_str)
                    .ok_or_else(|| missing(&format!("key {key} not found in {config_map}")))
            }
        }
    }

    /// The template of an Alert in the namespace, or else of its Provider, which is given as
    /// namespace and name; `None` if neither has one. Each is read from its own namespace.
    ///
    /// # Errors
    /// See [`Rules::template`].
    pub fn template_for(
        &self,
        namespace: &str,
        own: Option<&Template>,
        provider: (&str, &str),
    ) -> Result<Option<String>, Unresolved> {
        let of_provider = self.provider(provider.0, provider.1);
        let default = of_provider.and_then(|provider| provider.template.as_ref());
        let template = match (own, default) {
            (Some(own), _) => Some((namespace, own)),
            (None, default) => default.map(|default| (provider.0, default)),
        };
        template
            .map(|(namespace, template)| self.template(namespace, template).map(str::to_owned))
            .transpose()
    }

    /// The Provider in effect and its cached resolution.
    pub(crate) fn provider_entry(&self, namespace: &str, name: &str) -> Option<&ProviderEntry> {
        self.providers.get(namespace, name)
    }

    /// The members whose rules are missing in these merged rules, because they were never read.
    pub fn unread(&self) -> impl Iterator<Item = &Arc<str>> {
        self.unread.iter()
    }

    /// Whether these are merged rules without those of a member, because they were never read.
    pub fn is_unread(&self, cluster: &str) -> bool {
        self.unread.contains(cluster)
    }

    /// Rejected objects without a last good state, each with the reason.
    pub fn rejected(&self) -> &[(Identity, String)] {
        &self.rejected
    }

    /// Why an object is rejected.
    pub(crate) fn rejection(&self, kind: &str, namespace: &str, name: &str) -> Option<&str> {
        let is_it = |identity: &Identity| {
            identity.kind == kind && identity.namespace == namespace && identity.name == name
        };
        self.rejected
            .iter()
            .find(|(identity, _)| is_it(identity))
            .map(|(_, reason)| reason.as_str())
    }

    /// The problems, sorted by file and line.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The options of the operator.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::{Family, Kind};
    use crate::testing::{alert, config_map, provider};

    const KINDS: Kinds = &[Kind::new("generic", Family::Generic)];

    #[test]
    fn alerts_are_sorted_and_found_by_name() {
        let objects = [
            alert("b", "p").object(),
            alert("a", "p").object(),
            provider("p", "generic").object(),
        ];
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert_eq!(
            rules
                .alerts()
                .map(|alert| alert.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(rules.alert("apps", "b").is_some() && rules.alert("apps", "c").is_none());
        assert_eq!(rules.candidates("Kustomization", "apps", "x").count(), 2);
        assert_eq!(rules.problems(), []);
    }

    #[test]
    fn an_absent_provider_is_missing_and_a_rejected_provider_is_invalid() {
        let objects = [
            alert("a", "gone").object(),
            alert("b", "bad").object(),
            provider("bad", "pigeon").object(),
        ];
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert!(matches!(
            rules.resolve("apps", "gone"),
            Err(Unresolved::Missing(_))
        ));
        let error = rules.resolve("apps", "bad").unwrap_err();
        assert!(
            matches!(&error, Unresolved::Invalid(message) if message.contains("pigeon")),
            "{error:?}"
        );
        let missing: Vec<_> = rules
            .problems()
            .iter()
            .filter(|problem| problem.field.as_deref() == Some("spec.providerRef.name"))
            .collect();
        assert_eq!(missing.len(), 1);
        assert!(missing[0].severity == Severity::Fault && missing[0].message.contains("apps/gone"));
    }

    #[test]
    fn a_template_is_inline_or_in_a_config_map() {
        let rules = Rules::compile(
            &[config_map("texts", json!({"key": "text"})).object()],
            KINDS,
            &Options::default(),
        );
        let reference = |name: &str, key: &str| Template::ConfigMap {
            name: name.into(),
            key: key.into(),
        };
        assert_eq!(
            rules.template("apps", &Template::Inline("t".into())),
            Ok("t")
        );
        assert_eq!(
            rules.template("apps", &reference("texts", "key")),
            Ok("text")
        );
        for (name, key) in [("texts", "no"), ("no", "key")] {
            assert!(
                rules.template("apps", &reference(name, key)).is_err(),
                "{name} {key}"
            );
        }
    }
}
