//! Which events a trace is about.

use anyhow::{Context as _, ensure};
use tidings_core::Event;
use tidings_core::model::subject::{ALL_EVENTS, event_filter};

/// The fewest characters of an id or a commit.
const FEWEST_CHARACTERS: usize = 7;

/// Which events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The event with this id, or whose id begins with it.
    Event(String),
    /// The events of this object.
    Object {
        /// The kind, such as `Kustomization`.
        kind: String,
        /// The namespace; empty for an object without one.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The events whose metadata names this commit, or one that begins with it.
    Commit(String),
}

impl Query {
    /// Parses the id of an event, or its first characters.
    ///
    /// # Errors
    /// It is too short, or not hexadecimal.
    pub fn event(id: &str) -> anyhow::Result<Self> {
        hexadecimal(id).map(Self::Event)
    }

    /// Parses `KIND/NAMESPACE/NAME`, or `KIND/NAME` for an object without a namespace.
    ///
    /// # Errors
    /// The text has another form.
    pub fn object(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts[..] {
            [kind, namespace, name] if !namespace.is_empty() => (kind, namespace, name),
            [kind, name] => (kind, "", name),
            _ => ("", "", ""),
        };
        ensure!(
            !kind.is_empty() && !name.is_empty(),
            "{text:?}: expected KIND/NAMESPACE/NAME, such as Kustomization/apps/shop"
        );
        Ok(Self::Object {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Parses the SHA of a commit, or its first characters.
    ///
    /// # Errors
    /// It is too short, or not hexadecimal.
    pub fn commit(sha: &str) -> anyhow::Result<Self> {
        hexadecimal(sha).map(Self::Commit)
    }

    /// The subjects of the wanted events.
    pub fn filter(&self, cluster: Option<&str>) -> String {
        match self {
            Self::Object {
                kind, namespace, ..
            } => event_filter(cluster, Some(namespace), Some(kind), None),
            _ if cluster.is_some() => event_filter(cluster, None, None, None),
            _ => ALL_EVENTS.to_owned(),
        }
    }

    /// Whether an event is wanted.
    pub fn selects(&self, event: &Event) -> bool {
        match self {
            Self::Event(id) => event.id.starts_with(id.as_str()),
            Self::Object {
                kind,
                namespace,
                name,
            } => event.involved_object.as_ref().is_some_and(|object| {
                (&object.kind, &object.namespace, &object.name) == (kind, namespace, name)
            }),
            Self::Commit(sha) => event.metadata.values().any(|value| names(value, sha)),
        }
    }

    /// What is wanted, for people.
    pub fn text(&self) -> String {
        match self {
            Self::Event(id) => format!("event {id}"),
            Self::Object {
                kind,
                namespace,
                name,
            } if namespace.is_empty() => format!("{kind} {name}"),
            Self::Object {
                kind,
                namespace,
                name,
            } => format!("{kind} {namespace}/{name}"),
            Self::Commit(sha) => format!("commit {sha}"),
        }
    }
}

/// Whether a value is a revision with this commit: `main@sha1:<commit>`, `main/<commit>`, or the
/// commit itself.
fn names(value: &str, sha: &str) -> bool {
    let parts = value.split([':', '/', '@']);
    parts
        .filter(|part| part.len() >= sha.len())
        .any(|part| part.as_bytes()[..sha.len()].eq_ignore_ascii_case(sha.as_bytes()))
}

fn hexadecimal(text: &str) -> anyhow::Result<String> {
    let is_valid = text.len() >= FEWEST_CHARACTERS
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_valid
        .then(|| text.to_ascii_lowercase())
        .with_context(|| format!("{text:?}: expected {FEWEST_CHARACTERS} to 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use tidings_core::ObjectReference;

    use super::*;

    fn event() -> Event {
        Event {
            id: "0123456789abcdef".into(),
            involved_object: Some(ObjectReference {
                kind: "Kustomization".into(),
                namespace: "apps".into(),
                name: "shop".into(),
                ..ObjectReference::default()
            }),
            metadata: [(
                "kustomize.toolkit.fluxcd.io/revision".to_owned(),
                "main@sha1:8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4".to_owned(),
            )]
            .into(),
            ..Event::default()
        }
    }

    #[test]
    fn an_event_is_selected_by_id_object_or_commit() {
        for (query, selected) in [
            (Query::event("0123456"), true),
            (Query::event("1234567"), false),
            (Query::object("Kustomization/apps/shop"), true),
            (Query::object("Kustomization/apps/cart"), false),
            (Query::object("Kustomization/shop"), false),
            (Query::commit("8BA2D1C"), true),
            (Query::commit("ba2d1c0"), false),
        ] {
            let query = query.unwrap();
            assert_eq!(query.selects(&event()), selected, "{query:?}");
        }
    }

    #[test]
    fn a_query_of_another_form_is_rejected() {
        for query in [
            Query::event("012345"),
            Query::event("not hexadecimal"),
            Query::commit(&"a".repeat(65)),
            Query::object("Kustomization"),
            Query::object("Kustomization//shop"),
            Query::object("a/b/c/d"),
            Query::object("/shop"),
        ] {
            assert!(query.is_err(), "{query:?}");
        }
    }

    #[test]
    fn only_an_objects_subjects_are_read_for_it() {
        let filter = |query: Query, cluster| query.filter(cluster);
        let object = Query::object("Kustomization/apps/shop").unwrap();
        assert_eq!(
            filter(object.clone(), None),
            "events.*.apps.Kustomization.*"
        );
        assert_eq!(filter(object, Some("eu")), "events.eu.apps.Kustomization.*");
        let commit = Query::commit("8ba2d1c").unwrap();
        assert_eq!(filter(commit, None), "events.>");
    }
}
