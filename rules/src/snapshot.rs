//! All rules at one moment: compiled, indexed, and never changed. What changes takes its place as a
//! whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use crate::alert::Alert;
use crate::check::{Checked, Options, Resource, check};
use crate::index::Index;
use crate::kind::Kinds;
use crate::object::{Identity, Object};
use crate::problem::Problem;
use crate::provider::Provider;
use crate::resolved::{ResolvedProvider, SecretData, Unresolved};
use crate::template::Template;

/// All rules at one moment.
///
/// # Guarantees
/// It never changes: whoever holds it sees one state of all rules. Equal input gives equal rules,
/// in the same order.
#[derive(Debug, Default)]
pub struct Rules {
    alerts: Vec<Arc<Alert>>,
    index: Index,
    providers: Named<ProviderEntry>,
    secrets: Named<Arc<SecretData>>,
    config_maps: Named<Arc<BTreeMap<String, String>>>,
    refused: Vec<(Identity, String)>,
    unreadable: BTreeMap<Identity, String>,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
    options: Options,
}

/// An Alert or a Provider that somebody has written, whether it is in force or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who it is.
    pub identity: Identity,
    /// Its uid; made of kind, namespace and name where no API server has given one.
    pub uid: String,
    /// How often its spec has changed, as the API server counts: the state that the problems are
    /// of.
    pub generation: Option<i64>,
    /// Why it is refused.
    pub refusal: Option<String>,
    /// Whether it, or an earlier state of it, is in force.
    pub in_force: bool,
    /// What is wrong with it, a Provider that an Alert lacks included. What its Secrets lack is
    /// told by [`Rules::resolve`].
    pub problems: Vec<Problem>,
}

/// A Provider, and what it came to with its Secrets: a snapshot needs to find that out only once.
#[derive(Debug)]
struct ProviderEntry {
    provider: Arc<Provider>,
    resolved: OnceLock<Result<Arc<ResolvedProvider>, Unresolved>>,
}

/// Objects by namespace and name.
#[derive(Debug)]
struct Named<T>(HashMap<String, HashMap<String, T>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Named<T> {
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
    /// Compiles objects. What is wrong with them is in [`Rules::problems`]; what is refused is not
    /// in force.
    pub fn compile(objects: &[Object], kinds: Kinds, options: &Options) -> Self {
        let (checked, problems) = check(objects, kinds, options);
        Self::new(checked, problems, options)
    }

    /// Puts checked objects together; the problems are what else is wrong.
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
        for mut checked in checked {
            if checked
                .provider()
                .is_some_and(|provider| !written.contains(&provider))
            {
                checked.problems.extend(checked.without_provider.take());
            }
            rules.problems.extend(checked.problems.iter().cloned());
            rules.add(checked);
        }
        rules
            .problems
            .sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
        rules.alerts.sort_by(|left, right| {
            (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name))
        });
        rules.index = Index::new(&rules.alerts);
        rules
    }

    /// The same, where these objects are named and nobody could read them, each for its reason.
    pub(crate) fn with_unreadable(self, unreadable: BTreeMap<Identity, String>) -> Self {
        Self { unreadable, ..self }
    }

    /// Why an object could not be read.
    pub(crate) fn unreadable(&self, identity: &Identity) -> Option<&str> {
        self.unreadable.get(identity).map(String::as_str)
    }

    fn add(&mut self, checked: Checked) {
        let Checked {
            identity,
            uid,
            generation,
            resource,
            refusal,
            problems,
            ..
        } = checked;
        if matches!(identity.kind.as_str(), "Alert" | "Provider") {
            let (identity, refusal, in_force) =
                (identity.clone(), refusal.clone(), resource.is_some());
            self.entries.push(Entry {
                identity,
                uid,
                generation,
                refusal,
                in_force,
                problems,
            });
        }
        match (resource, refusal) {
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
            (None, refusal) => self.refused.push((identity, refusal.unwrap_or_default())),
        }
    }

    /// Every Alert and Provider that somebody has written.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Every Alert in force, by namespace and name.
    pub fn alerts(&self) -> impl ExactSizeIterator<Item = &Arc<Alert>> {
        self.alerts.iter()
    }

    /// The Alerts that have a source for such an object, by namespace and name, each once. What
    /// else they ask for is not looked at.
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

    /// An Alert in force.
    pub fn alert(&self, namespace: &str, name: &str) -> Option<&Arc<Alert>> {
        let position = self.alerts.binary_search_by(|alert| {
            (alert.namespace.as_str(), alert.name.as_str()).cmp(&(namespace, name))
        });
        Some(&self.alerts[position.ok()?])
    }

    /// A Provider in force.
    pub fn provider(&self, namespace: &str, name: &str) -> Option<&Arc<Provider>> {
        Some(&self.providers.get(namespace, name)?.provider)
    }

    /// Every Provider in force, in no order.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers
            .0
            .values()
            .flat_map(HashMap::values)
            .map(|entry| &entry.provider)
    }

    /// The data of a Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&SecretData> {
        self.secrets.get(namespace, name).map(Arc::as_ref)
    }

    /// The text of a template of an Alert or a Provider in this namespace.
    ///
    /// # Errors
    /// Where the ConfigMap or its key does not exist.
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
                        "{what} ConfigMap {namespace}/{name} for spec.template"
                    ))
                };
                let data = self
                    .config_maps
                    .get(namespace, name)
                    .ok_or_else(|| missing("there is no"))?;
                data.get(key)
                    .map(String::as_str)
                    .ok_or_else(|| missing(&format!("there is no key {key} in")))
            }
        }
    }

    /// The text of the template for what an Alert sends to a Provider of its namespace: the Alert's
    /// own, else the Provider's. Nothing where neither has one.
    ///
    /// # Errors
    /// As [`Rules::template`].
    pub fn template_for(
        &self,
        namespace: &str,
        own: Option<&Template>,
        provider: &str,
    ) -> Result<Option<String>, Unresolved> {
        let default = || {
            self.provider(namespace, provider)
                .and_then(|provider| provider.template.as_ref())
        };
        own.or_else(default)
            .map(|template| self.template(namespace, template).map(str::to_owned))
            .transpose()
    }

    /// A Provider with all that its Secrets hold.
    ///
    /// # Errors
    /// `Missing` where it or a Secret that it names does not exist, `Suspended`, and `Invalid` for
    /// all that only a change of the Provider or the Secret mends.
    pub fn resolve(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<ResolvedProvider>, Unresolved> {
        match self.providers.get(namespace, name) {
            Some(entry) => entry
                .resolved
                .get_or_init(|| crate::resolve::resolve(self, &entry.provider).map(Arc::new))
                .clone(),
            None => Err(match self.refusal("Provider", namespace, name) {
                Some(sentence) => Unresolved::Invalid(format!(
                    "Provider {namespace}/{name} is refused: {sentence}"
                )),
                None => Unresolved::Missing(format!("there is no Provider {namespace}/{name}")),
            }),
        }
    }

    /// Objects that are refused and have no earlier state that is in force, each with the reason.
    pub fn refused(&self) -> &[(Identity, String)] {
        &self.refused
    }

    /// Why an object is refused.
    pub(crate) fn refusal(&self, kind: &str, namespace: &str, name: &str) -> Option<&str> {
        let is_it = |identity: &Identity| {
            identity.kind == kind && identity.namespace == namespace && identity.name == name
        };
        self.refused
            .iter()
            .find(|(identity, _)| is_it(identity))
            .map(|(_, sentence)| sentence.as_str())
    }

    /// What is wrong, in the order of files.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What the operator decided.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kind::{Family, Kind};
    use crate::problem::Severity;

    const KINDS: Kinds = &[Kind {
        name: "generic",
        family: Family::Generic,
    }];

    fn object(kind: &str, name: &str, spec: Value) -> Object {
        let api_version = if kind == "ConfigMap" {
            "v1"
        } else {
            "notification.toolkit.fluxcd.io/v1beta3"
        };
        let metadata = json!({"name": name, "namespace": "apps"});
        Object::new(
            json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "data": {"key": "text"}}),
        )
    }

    fn alert(name: &str, provider: &str) -> Object {
        let sources = json!([{"kind": "Kustomization", "name": "*"}]);
        object(
            "Alert",
            name,
            json!({"providerRef": {"name": provider}, "eventSources": sources}),
        )
    }

    #[test]
    fn alerts_are_in_order_and_found_by_name() {
        let objects = [
            alert("b", "p"),
            alert("a", "p"),
            object("Provider", "p", json!({"type": "generic"})),
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
    fn a_provider_that_is_not_there_is_told_and_missing_while_a_refused_one_is_invalid() {
        let objects = [
            alert("a", "gone"),
            alert("b", "bad"),
            object("Provider", "bad", json!({"type": "pigeon"})),
        ];
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert!(matches!(
            rules.resolve("apps", "gone"),
            Err(Unresolved::Missing(_))
        ));
        assert!(
            matches!(rules.resolve("apps", "bad"), Err(Unresolved::Invalid(sentence)) if sentence.contains("pigeon"))
        );
        let warnings: Vec<_> = rules
            .problems()
            .iter()
            .filter(|problem| problem.severity == Severity::Warning)
            .collect();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().contains("Provider apps/gone"));
    }

    #[test]
    fn a_template_is_inline_or_in_a_config_map() {
        let rules = Rules::compile(
            &[object("ConfigMap", "texts", Value::Null)],
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
