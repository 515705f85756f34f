//! Each object for itself: read, checked, compiled, or refused with a sentence.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::alert::{Alert, uid};
use crate::kind::Kinds;
use crate::object::{GROUP, Identity, Object};
use crate::problem::{Problem, Severity};
use crate::provider::Provider;
use crate::resolved::SecretData;
use crate::resource::{Report, Version};
use crate::secret;

/// What the operator decides about all rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Alerts get events of their own namespace only.
    pub no_cross_namespace_refs: bool,
    /// The namespaces whose Alerts may write `namespace: "*"` for every namespace.
    pub namespace_wildcard_for: Vec<String>,
}

/// An object that is in force.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A rule.
    Alert(Arc<Alert>),
    /// A destination.
    Provider(Arc<Provider>),
    /// What a Provider needs and nobody may see.
    Secret(Arc<SecretData>),
    /// Where templates stand.
    ConfigMap(Arc<BTreeMap<String, String>>),
}

/// One object after its check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Who it is.
    pub identity: Identity,
    /// Its uid; made of kind, namespace and name where no API server has given one.
    pub uid: String,
    /// How often its spec has changed, as the API server counts.
    pub generation: Option<i64>,
    /// What is in force: what the object says, or the last good state of one that is refused.
    pub resource: Option<Resource>,
    /// Why it is refused.
    pub refusal: Option<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What is wrong with it as long as nobody has written its Provider. That may come later, so
    /// it is no error.
    pub(crate) without_provider: Option<Problem>,
}

impl Checked {
    /// The Provider of an Alert.
    pub(crate) fn provider(&self) -> Option<Identity> {
        let Some(Resource::Alert(alert)) = &self.resource else {
            return None;
        };
        Some(Identity {
            kind: "Provider".to_owned(),
            namespace: alert.namespace.clone(),
            name: alert.provider.clone(),
        })
    }
}

/// Checks objects one by one; kinds that rules don't consist of are read over. Where an object is
/// there twice, the first one counts. The problems are those of objects that don't count.
pub fn check(objects: &[Object], kinds: Kinds, options: &Options) -> (Vec<Checked>, Vec<Problem>) {
    let mut checked = Vec::new();
    let mut problems = Vec::new();
    let mut seen: HashMap<Identity, &Object> = HashMap::new();
    for object in objects.iter().filter(|object| object.is_rule()) {
        let identity = object.identity();
        if identity.name.is_empty() {
            problems.push(object.problem(
                Severity::Error,
                "metadata.name",
                "is missing; every object needs a name",
            ));
        } else if let Some(first) = seen.get(&identity) {
            let sentence = format!(
                "is there twice: the one {} counts, this one does not",
                place(first)
            );
            problems.push(object.problem(Severity::Error, "", sentence));
        } else {
            seen.insert(identity.clone(), object);
            checked.push(check_one(object, kinds, options));
        }
    }
    (checked, problems)
}

/// Checks one object; it has a name, and rules consist of such.
pub(crate) fn check_one(object: &Object, kinds: Kinds, options: &Options) -> Checked {
    let mut report = Report::new(object);
    secret::refuse_encrypted(&mut report);
    check_metadata(&mut report);
    let resource = match (object.text(&["kind"]), version(&mut report)) {
        ("Alert", Some(version)) => Alert::compile(version, options, &mut report)
            .map(|alert| Resource::Alert(Arc::new(alert))),
        ("Provider", Some(version)) => Provider::compile(version, kinds, &mut report)
            .map(|provider| Resource::Provider(Arc::new(provider))),
        ("Secret", _) => Some(Resource::Secret(Arc::new(secret::secret(&mut report)))),
        ("ConfigMap", _) => Some(Resource::ConfigMap(Arc::new(secret::config_map(
            &mut report,
        )))),
        _ => None,
    };
    let refusal = report.refusal().map(|problem| match &problem.field {
        Some(field) => format!("{field} {}", problem.sentence),
        None => problem.sentence.clone(),
    });
    let refusal = refusal.or_else(|| resource.is_none().then(|| "can't be read".to_owned()));
    let mut checked = Checked {
        identity: object.identity(),
        uid: uid(&report),
        generation: object.value["metadata"]["generation"].as_i64(),
        resource: resource.filter(|_| refusal.is_none()),
        refusal,
        problems: report.problems,
        without_provider: None,
    };
    checked.without_provider = checked.provider().map(|provider| {
        object.problem(
            Severity::Warning,
            "spec.providerRef.name",
            format!("there is no {provider}"),
        )
    });
    checked
}

/// The version of an Alert or a Provider.
fn version(report: &mut Report<'_>) -> Option<Version> {
    let api_version = report.object.text(&["apiVersion"]);
    let version = Version::parse(api_version);
    if version.is_none() && api_version.starts_with(GROUP) {
        report.error(
            "apiVersion",
            format!("\"{api_version}\" is not read; write {GROUP}/v1beta3"),
        );
    }
    version
}

/// An API server takes no other names.
fn check_metadata(report: &mut Report<'_>) {
    let identity = report.object.identity();
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    for (field, name, longest) in [
        ("metadata.name", &identity.name, 253),
        ("metadata.namespace", &identity.namespace, 63),
    ] {
        let edges = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
        if name.len() > longest || edges || !name.bytes().all(inner) {
            report.error(
                field,
                format!("must be at most {longest} lower-case letters, digits, dashes and dots"),
            );
        }
    }
}

fn place(object: &Object) -> String {
    match (&object.origin.file, object.origin.line("")) {
        (Some(file), Some(line)) => format!("in {file}:{line}"),
        (Some(file), None) => format!("in {file}"),
        _ => "before it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::{Family, Kind};

    const KINDS: Kinds = &[Kind {
        name: "slack",
        family: Family::Message,
    }];

    fn object(api_version: &str, kind: &str, name: &str) -> Object {
        let spec = json!({"type": "slack", "providerRef": {"name": "p"}, "eventSources": []});
        Object::new(
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}),
        )
    }

    fn check_all(objects: &[Object]) -> (Vec<(String, bool)>, Vec<String>) {
        let (checked, mut problems) = check(objects, KINDS, &Options::default());
        problems.extend(checked.iter().flat_map(|checked| checked.problems.clone()));
        let checked = checked
            .iter()
            .map(|checked| (checked.identity.to_string(), checked.resource.is_some()))
            .collect();
        (checked, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_bad_object_is_refused_alone() {
        let v1beta3 = "notification.toolkit.fluxcd.io/v1beta3";
        let (checked, problems) = check_all(&[
            object(v1beta3, "Alert", "Bad_Name"),
            object("notification.toolkit.fluxcd.io/v7", "Provider", "p"),
            object("notification.toolkit.fluxcd.io/v1", "Alert", "a"),
            object("apps/v1", "Deployment", "d"),
            object(v1beta3, "Receiver", "r"),
        ]);
        let expected = [
            ("Alert default/Bad_Name", false),
            ("Provider default/p", false),
            ("Alert default/a", true),
        ];
        assert_eq!(
            checked,
            expected.map(|(name, good)| (name.to_owned(), good))
        );
        assert!(
            problems[1].contains("write notification.toolkit.fluxcd.io/v1beta3"),
            "{problems:?}"
        );
    }

    #[test]
    fn of_two_objects_with_one_name_the_first_counts() {
        let mut first = object("v1", "Secret", "s");
        first.origin.file = Some("a.yaml".into());
        let mut second = object("v1", "Secret", "s");
        second.origin.file = Some("b.yaml".into());
        let (checked, problems) = check_all(&[first, second]);
        assert_eq!(checked.len(), 1);
        assert_eq!(
            problems,
            [
                "b.yaml: Secret default/s: is there twice: the one in a.yaml counts, this one does not"
            ]
        );
    }
}
