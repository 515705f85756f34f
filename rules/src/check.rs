//! Checks and compiles each object by itself, or rejects it with a problem.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::alert::Alert;
use crate::extensions::ObjectExtensions;
use crate::grant::{self, ProviderGrant};
use crate::kind::Kinds;
use crate::object::{GRANT_KIND, GROUP, Identity, Object, Origin};
use crate::options::Options;
use crate::problem::{Problem, Severity};
use crate::provider::Provider;
use crate::report::Report;
use crate::resolved::SecretData;
use crate::resource::Version;
use crate::secret;
use crate::structure;

/// A compiled object.
#[derive(Clone, Debug)]
pub enum Resource {
    /// An Alert.
    Alert(Arc<Alert>),
    /// A Provider.
    Provider(Arc<Provider>),
    /// The keys of a Secret.
    Secret(Arc<SecretData>),
    /// The keys of a ConfigMap.
    ConfigMap(Arc<BTreeMap<String, String>>),
    /// A ProviderGrant.
    Grant(Arc<ProviderGrant>),
}

/// The result of the check of one object.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Kind, namespace and name.
    pub identity: Identity,
    /// The origin of the manifest.
    pub origin: Arc<Origin>,
    /// The uid, or a UUIDv5 if the manifest has none.
    pub uid: String,
    /// `metadata.generation`, which the API server increments with each change of the spec.
    pub generation: Option<i64>,
    /// The compiled object, or its last good state if the object is rejected.
    pub resource: Option<Resource>,
    /// Why the object is rejected.
    pub rejection: Option<String>,
    /// The problems of the object.
    pub problems: Vec<Problem>,
    /// The extensions that the object has now.
    pub(crate) extensions: ObjectExtensions,
    /// The problem to report if the Provider of the Alert does not exist. It does not reject the
    /// Alert, because the Provider may be created later.
    pub(crate) provider_not_found: Option<Problem>,
    /// The problem to report if the Provider of the Alert is in another namespace and not shared.
    /// It does not reject the Alert, because a grant may be created later.
    pub(crate) provider_not_granted: Option<Problem>,
    /// The Provider that the Alert names, even if the Alert is rejected.
    pub(crate) provider: Option<Identity>,
    /// A warning at `spec.secretRef`, without a message. The Secret may be read later.
    pub(crate) secret_warning: Option<Problem>,
}

/// Checks each object; ignores kinds that are not rules. If an object exists twice, the first one
/// is used. The returned problems are those of unused objects.
pub fn check<O: Borrow<Object>>(
    objects: impl IntoIterator<Item = O>,
    kinds: Kinds,
    options: &Options,
) -> (Vec<Checked>, Vec<Problem>) {
    let mut checked = Vec::new();
    let mut problems = Vec::new();
    let mut seen: HashMap<Identity, Arc<Origin>> = HashMap::new();
    for object in objects {
        let object = object.borrow();
        if !object.is_rule() {
            continue;
        }
        let identity = object.identity();
        if identity.name.is_empty() {
            problems.push(object.problem(
                Severity::Error,
                "metadata.name",
                "is missing; set the name of the object",
            ));
        } else if let Some(first) = seen.get(&identity) {
            let message = format!(
                "already exists {}; this one is ignored: remove or rename it",
                location(first)
            );
            problems.push(object.problem(Severity::Error, "", message));
        } else {
            seen.insert(identity, object.origin.clone());
            checked.push(check_one(object, kinds, options));
        }
    }
    (checked, problems)
}

/// Checks one object. It must have a name and be of a kind of rule.
pub(crate) fn check_one(object: &Object, kinds: Kinds, options: &Options) -> Checked {
    let mut report = Report::new(object);
    secret::reject_encrypted(&mut report);
    structure::check_manifest(&mut report);
    check_metadata(&mut report);
    let resource = match object.text(&["kind"]) {
        "Alert" => {
            let version = version(&mut report);
            Alert::compile(version, options, &mut report)
                .map(|alert| Resource::Alert(Arc::new(alert)))
        }
        "Provider" => {
            let version = version(&mut report);
            Provider::compile(version, kinds, &mut report)
                .map(|provider| Resource::Provider(Arc::new(provider)))
        }
        GRANT_KIND => {
            ProviderGrant::compile(&mut report).map(|grant| Resource::Grant(Arc::new(grant)))
        }
        "Secret" => Some(Resource::Secret(Arc::new(secret::secret(&mut report)))),
        "ConfigMap" => Some(Resource::ConfigMap(Arc::new(secret::config_map(
            &mut report,
        )))),
        _ => None,
    };
    let rejection = report.rejection().map(|problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.message),
        None => problem.message.clone(),
    });
    let rejection = rejection.or_else(|| resource.is_none().then(|| "is invalid".to_owned()));
    let provider = resource.as_ref().and_then(provider_of);
    Checked {
        identity: object.identity(),
        origin: object.origin.clone(),
        uid: report.uid(),
        generation: object.value["metadata"]["generation"].as_i64(),
        resource: resource.filter(|_| rejection.is_none()),
        rejection,
        extensions: ObjectExtensions::new(object, &report.annotated),
        problems: report.problems.clone(),
        provider_not_found: provider
            .as_ref()
            .map(|provider| provider_not_found(object, provider)),
        provider_not_granted: provider
            .as_ref()
            .and_then(|provider| provider_not_granted(&report, provider)),
        provider,
        secret_warning: (object.text(&["kind"]) == "Provider")
            .then(|| object.problem(Severity::Warning, "spec.secretRef", "")),
    }
}

/// The Provider that an Alert names.
fn provider_of(resource: &Resource) -> Option<Identity> {
    let Resource::Alert(alert) = resource else {
        return None;
    };
    let identity = Identity {
        kind: "Provider".to_owned(),
        namespace: alert.provider_namespace.clone(),
        name: alert.provider.clone(),
    };
    Some(identity).filter(|identity| !identity.name.is_empty())
}

fn provider_not_found(object: &Object, provider: &Identity) -> Problem {
    object.problem(
        Severity::Fault,
        "spec.providerRef.name",
        format!(
            "{provider} not found; create it in namespace {}",
            provider.namespace
        ),
    )
}

/// `None` if the Provider is in the namespace of the Alert.
fn provider_not_granted(report: &Report<'_>, provider: &Identity) -> Option<Problem> {
    let own = report.object.identity().namespace;
    let message = || grant::missing(&own, &provider.namespace, &provider.name);
    (provider.namespace != own).then(|| report.fault_at("spec.providerRef.namespace", message()))
}

/// The API version of an Alert or a Provider. An unsupported one is read like the latest, so that
/// the problems of other fields are found too.
fn version(report: &mut Report<'_>) -> Version {
    let api_version = report.object.text(&["apiVersion"]);
    Version::parse(api_version).unwrap_or_else(|| {
        report.error(
            "apiVersion",
            format!("\"{api_version}\" is not supported; use {GROUP}/v1beta3"),
        );
        Version::V1beta3
    })
}

/// Rejects names that an API server would reject.
fn check_metadata(report: &mut Report<'_>) {
    let identity = report.object.identity();
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    for (field, name, max_length) in [
        ("metadata.name", &identity.name, 253),
        ("metadata.namespace", &identity.namespace, 63),
    ] {
        let edges = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
        if name.len() > max_length || edges || !name.bytes().all(inner) {
            report.error(
                field,
                format!(
                    "must have at most {max_length} lowercase letters, digits, dashes and dots"
                ),
            );
        }
    }
}

fn location(origin: &Origin) -> String {
    match (&origin.file, origin.line("")) {
        (Some(file), Some(line)) => format!("in {file}:{line}"),
        (Some(file), None) => format!("in {file}"),
        _ => "earlier in the rules".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::{Family, Kind};

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    fn object(api_version: &str, kind: &str, name: &str) -> Object {
        let spec = json!({"type": "slack", "providerRef": {"name": "p"}, "eventSources": []});
        Object::new(json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec,
        }))
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
    fn an_invalid_object_does_not_affect_other_objects() {
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
        let fix = "use notification.toolkit.fluxcd.io/v1beta3";
        let of_provider = |problem: &&String| problem.starts_with("Provider default/p");
        let problem = problems.iter().find(of_provider);
        assert!(
            problem.is_some_and(|problem| problem.contains(fix)),
            "{problems:?}"
        );
    }

    #[test]
    fn of_two_objects_with_the_same_name_the_first_is_used() {
        let secret = || crate::testing::secret("s", json!({"a": "b"})).object();
        let mut first = secret();
        Arc::make_mut(&mut first.origin).file = Some("a.yaml".into());
        let mut second = secret();
        Arc::make_mut(&mut second.origin).file = Some("b.yaml".into());
        let (checked, problems) = check_all(&[first, second]);
        assert_eq!(checked.len(), 1);
        assert_eq!(
            problems,
            ["b.yaml: Secret apps/s: already exists in a.yaml; \
                 this one is ignored: remove or rename it"]
        );
    }
}
