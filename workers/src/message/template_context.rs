//! The variables that templates and patterns can use.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tidings_core::model::flux;
use tidings_core::model::origin;
use tidings_rules::ResolvedProvider;

use crate::message::Message;
use crate::message::repository::{Repository, parse};
use crate::message::revision;
use crate::text::cut_bytes;

/// The longest text. Longer texts are cut, so that templates render fast.
const LONGEST_TEXT: usize = 16 << 10;
/// The most metadata entries. Further entries are dropped.
const MOST_METADATA: usize = 100;
/// The length at which Git abbreviates a commit.
const SHORT_COMMIT: usize = 7;

/// The variables of a template or pattern. They hold no secrets, and only names of the Provider.
#[derive(Serialize)]
pub struct TemplateContext {
    event: Value,
    metadata: Value,
    kind: String,
    namespace: String,
    name: String,
    cluster: String,
    /// The labels that the hub gives the cluster.
    pub cluster_labels: BTreeMap<String, String>,
    alert: Named,
    provider: ProviderNames,
    revision: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    short_commit: Option<String>,
    repository: Option<String>,
    /// The URLs by name, for templates only.
    pub links: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Serialize)]
struct ProviderNames {
    #[serde(flatten)]
    named: Named,
    r#type: &'static str,
}

impl TemplateContext {
    /// The variables for a message.
    pub fn new(message: &Message<'_>, provider: &ResolvedProvider) -> Self {
        let named = (provider.namespace.as_str(), provider.name.as_str());
        Self::of(message, named, provider.kind.name)
    }

    /// The variables for a message to a Provider of this name and type.
    pub fn of(message: &Message<'_>, provider: (&str, &str), kind: &'static str) -> Self {
        let metadata: BTreeMap<String, String> = message
            .metadata
            .iter()
            .take(MOST_METADATA)
            .map(|(key, value)| (cut_bytes(key, LONGEST_TEXT), cut_bytes(value, LONGEST_TEXT)))
            .collect();
        let mut event = flux::to_value(message.event, &metadata);
        event["message"] = cut_bytes(&message.event.message, LONGEST_TEXT).into();
        let named = |namespace: &str, name: &str| Named {
            namespace: origin::plain(namespace).to_owned(),
            name: name.to_owned(),
        };
        let commit = commit(&metadata);
        let object = message.object;
        Self {
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            cluster: message.event.cluster.clone(),
            cluster_labels: BTreeMap::new(),
            alert: named(&message.alert.namespace, &message.alert.name),
            provider: ProviderNames {
                named: named(provider.0, provider.1),
                r#type: kind,
            },
            revision: metadata.get("revision").cloned(),
            branch: branch(&metadata),
            short_commit: commit
                .as_ref()
                .map(|commit| commit.chars().take(SHORT_COMMIT).collect()),
            commit,
            repository: repository(message)
                .map(|repository| format!("{}/{}", repository.root(), repository.path())),
            links: BTreeMap::new(),
            metadata: serde_json::to_value(metadata).unwrap_or_default(),
            event,
        }
    }

    /// The commit, if the event names one.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }
}

/// The repository in the metadata `repository`, in any form that Git accepts.
pub fn repository(message: &Message<'_>) -> Option<Repository> {
    parse(message.metadata.get("repository")?)
}

fn commit(metadata: &BTreeMap<String, String>) -> Option<String> {
    revision::commit(metadata).ok().map(str::to_lowercase)
}

/// The part before the commit: the branch, or the tag of an artifact.
fn branch(metadata: &BTreeMap<String, String>) -> Option<String> {
    let revision = metadata
        .get("originRevision")
        .or_else(|| metadata.get("revision"))?;
    let is_commit =
        |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let branch = match revision.split_once('@') {
        Some((branch, _)) => branch,
        None => {
            revision
                .rsplit_once('/')
                .filter(|(_, commit)| is_commit(commit))?
                .0
        }
    };
    Some(
        branch
            .strip_prefix("refs/heads/")
            .unwrap_or(branch)
            .to_owned(),
    )
    .filter(|branch| !branch.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample::{Sample, provider, secret};

    #[test]
    fn the_variables_hold_no_secrets() {
        let mut sample = Sample::info();
        sample.event.cluster = "eu-1".into();
        sample.metadata.insert(
            "repository".into(),
            "https://user:s3cret@github.com/acme/de ploy.git".into(),
        );
        let provider = provider("slack", |provider| {
            provider.address = "https://hooks.example.com/s3cret".into();
            provider.secret = secret(&[("token", "s3cret")]);
        });
        let mut context =
            serde_json::to_value(TemplateContext::new(&sample.message(), &provider)).unwrap();
        context["event"]["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("repository");
        context["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("repository");
        assert!(!context.to_string().contains("s3cret"), "{context}");
        insta::assert_json_snapshot!(context);
    }

    #[test]
    fn a_revision_is_split_into_branch_and_commit() {
        const HASH: &str = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        for (revision, expected) in [
            (format!("main@sha1:{HASH}"), Some("main")),
            (
                format!("refs/heads/feature/a@sha1:{HASH}"),
                Some("feature/a"),
            ),
            (format!("feature/a/{HASH}"), Some("feature/a")),
            (format!("sha1:{HASH}"), None),
            ("latest@sha256:0a".to_owned(), Some("latest")),
            ("6.5.4".to_owned(), None),
            ("a/b".to_owned(), None),
        ] {
            let metadata = BTreeMap::from([("revision".to_owned(), revision.clone())]);
            assert_eq!(branch(&metadata).as_deref(), expected, "{revision}");
        }
        let origin = BTreeMap::from([
            ("originRevision".to_owned(), format!("main@sha1:{HASH}")),
            ("revision".to_owned(), "latest@sha256:0a".to_owned()),
        ]);
        assert_eq!(
            (branch(&origin).as_deref(), commit(&origin).as_deref()),
            (Some("main"), Some(HASH))
        );
    }

    #[test]
    fn long_texts_and_metadata_are_cut() {
        let mut sample = Sample::info().with_message("m".repeat(1 << 20));
        sample
            .metadata
            .extend((0..1_000).map(|number| (format!("key-{number}"), "v".repeat(100_000))));
        let context = serde_json::to_value(TemplateContext::new(
            &sample.message(),
            &provider("slack", |_| ()),
        ))
        .unwrap();
        assert_eq!(
            context["event"]["message"].as_str().unwrap().len(),
            LONGEST_TEXT
        );
        assert_eq!(
            context["metadata"].as_object().unwrap().len(),
            MOST_METADATA
        );
        assert_eq!(
            context["metadata"]["key-0"].as_str().unwrap().len(),
            LONGEST_TEXT
        );
    }
}
