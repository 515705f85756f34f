//! The commit status that an event asks for. All forges share it; each maps it to its own states.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tidings_core::model::flux;
use tidings_core::model::object_state::{self, ObjectState, ReasonStates};
use tidings_core::model::origin;
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;

use super::status_id;
use crate::expression::{Expression, Owner, Variables};
use crate::message::Message;
use crate::message::revision;
use crate::notifier::contract::{DesiredState, RemoteState};
use crate::text::{cut_chars, cut_id, words};

/// The longest name of a cluster in a description, in characters. The shortest descriptions have
/// 140.
const LONGEST_CLUSTER: usize = 63;

/// The commit status that an event asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Identifies the status among all statuses of the commit.
    pub context: String,
    /// Whether the commit is applied. Records are stored with the name `verdict`.
    #[serde(rename = "verdict")]
    pub state: CommitState,
    /// The reason in words.
    pub description: String,
    /// The link, if a pattern gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_url: Option<String>,
}

/// Whether the event's object has applied the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitState {
    /// It is applied.
    Success,
    /// Applying it failed.
    Failure,
    /// It is being applied.
    Pending,
}

/// How pending states are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progressing {
    /// They are skipped.
    Skipped,
    /// They have the state `Pending`.
    Pending,
}

/// Reads commit statuses from events for one Provider.
pub struct StatusReader {
    expression: Option<Expression>,
    progressing: Progressing,
    is_id_qualified: bool,
    reason_states: ReasonStates,
    provider_uid: String,
    provider_manifest: Json,
}

// === impl StatusReader ===

impl StatusReader {
    /// Uses the Provider's expression and options. `progressing` is Flux's handling, which an
    /// option can change.
    pub fn new(provider: &ResolvedProvider, progressing: Progressing) -> Self {
        let source = provider
            .commit_status_expr
            .as_deref()
            .filter(|source| !source.is_empty());
        let owner = Owner {
            namespace: provider.namespace.clone(),
            name: provider.name.clone(),
        };
        Self {
            expression: source.map(|source| Expression::new(owner, source)),
            progressing: if provider.commit_status.pending {
                Progressing::Pending
            } else {
                progressing
            },
            is_id_qualified: provider.commit_status.qualified_id,
            reason_states: provider.reason_states.clone(),
            provider_uid: provider.uid.clone(),
            provider_manifest: without_empty_fields(provider.manifest.clone()),
        }
    }

    /// The status that the event asks for; `None` if it says nothing about the commit, or if it is
    /// pending and that is skipped.
    ///
    /// # Errors
    /// The expression fails, the event names no commit, or its severity is neither info nor error.
    pub async fn status(&self, message: &Message<'_>) -> Result<Option<CommitStatus>, Failure> {
        let context = self.context(message).await?;
        let severity = message.event.severity.as_str();
        if !matches!(severity, "info" | "error") {
            let detail =
                format!("the event has severity {severity:?}; a commit status needs info or error");
            return Err(Failure::permanent(Reason::Misconfigured, detail));
        }
        let Some(state) = self.state(message) else {
            return Ok(None);
        };
        Ok(Some(CommitStatus {
            commit: revision::commit(message.metadata)?.to_owned(),
            context,
            state,
            description: self.description(message),
            target_url: message.rendered.target_url.clone(),
        }))
    }

    /// The reason in words, after the cluster's name unless the id has it.
    fn description(&self, message: &Message<'_>) -> String {
        let reason = words(&message.event.reason);
        let has_it = self.is_id_qualified && self.expression.is_none();
        match message.cluster().filter(|_| !has_it) {
            Some(cluster) => format!("{}: {reason}", cut_chars(cluster, LONGEST_CLUSTER)),
            None => reason,
        }
    }

    fn state(&self, message: &Message<'_>) -> Option<CommitState> {
        match object_state::with(message.event, &self.reason_states) {
            ObjectState::Success => Some(CommitState::Success),
            ObjectState::Failure => Some(CommitState::Failure),
            ObjectState::Pending => {
                (self.progressing == Progressing::Pending).then_some(CommitState::Pending)
            }
            ObjectState::None => None,
        }
    }

    /// The commit status id: the result of the expression, or the default.
    ///
    /// # Errors
    /// The expression fails.
    pub async fn context(&self, message: &Message<'_>) -> Result<String, Failure> {
        let Some(expression) = &self.expression else {
            let default = status_id::default_id(message.object, &self.provider_uid);
            return Ok(match self.is_id_qualified {
                true => status_id::qualified(&default, &message.event.cluster, message.object),
                false => default,
            });
        };
        let variables = Variables {
            event: flux::to_value(message.event, message.metadata),
            alert: alert_manifest(message),
            provider: self.provider_manifest.clone(),
        };
        expression.evaluate(variables).await
    }

    /// What a forge shows that hides the id, such as Bitbucket: `<kind>/<name>` in lower case as in
    /// Flux, and what else distinguishes the status from others of the commit. The result of an
    /// expression that begins with kind and name is known to users, and is not repeated.
    pub fn visible_name(&self, message: &Message<'_>, context: &str) -> String {
        let object = format!("{}/{}", message.object.kind, message.object.name).to_lowercase();
        match self.expression {
            None if self.is_id_qualified => {
                status_id::qualified(&object, &message.event.cluster, message.object)
            }
            Some(_) if !context.to_lowercase().starts_with(&object) => {
                format!("{object} ({context})")
            }
            _ => object,
        }
    }
}

impl CommitStatus {
    /// The status, with its id and its description cut to these numbers of characters.
    pub fn fitted(self, longest_id: usize, longest_description: usize) -> Self {
        Self {
            context: cut_id(&self.context, longest_id),
            description: cut_chars(&self.description, longest_description),
            ..self
        }
    }

    /// Whether the forge's status has the desired link. Without a desired link, any is accepted.
    pub fn links_to(&self, remote_url: Option<&str>) -> bool {
        self.target_url.is_none() || self.target_url.as_deref() == remote_url
    }
}

/// The desired state of a commit's context. `key_prefix` names forge and repository. The key
/// ignores their case.
pub fn desired(
    key_prefix: &str,
    commit: &str,
    context: &str,
    state: &impl Serialize,
) -> DesiredState {
    let key = format!(
        "{} {} {context}",
        key_prefix.to_lowercase(),
        commit.to_lowercase()
    );
    DesiredState::new(key, state)
}

/// The state of the forge's entry for the context.
pub fn remote_state(is_same: bool) -> RemoteState {
    if is_same {
        RemoteState::Same { handle: None }
    } else {
        RemoteState::Other { handle: None }
    }
}

fn alert_manifest(message: &Message<'_>) -> Json {
    let alert = message.alert;
    let manifest = serde_json::from_str(&alert.manifest).unwrap_or_else(|_| {
        let namespace = origin::plain(&alert.namespace);
        let metadata = json!({"name": alert.name, "namespace": namespace, "uid": alert.uid});
        json!({"kind": "Alert", "metadata": metadata})
    });
    without_empty_fields(manifest)
}

/// A manifest without the empty optional fields of `metadata` and `spec`, as Flux's types write it.
fn without_empty_fields(mut manifest: Json) -> Json {
    for part in ["metadata", "spec"] {
        if let Some(fields) = manifest.get_mut(part).and_then(Json::as_object_mut) {
            fields.retain(|_, field| match field {
                Json::Null | Json::Bool(false) => false,
                Json::String(text) => !text.is_empty(),
                Json::Array(items) => !items.is_empty(),
                Json::Object(fields) => !fields.is_empty(),
                Json::Bool(true) | Json::Number(_) => true,
            });
        }
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::blocking::wait_for;
    use crate::notifier::sample::{Sample, provider};

    fn read(reader: &StatusReader, sample: &Sample) -> Result<Option<CommitStatus>, Failure> {
        wait_for(reader.status(&sample.message())).unwrap()
    }

    fn status(sample: &Sample, expression: Option<&str>) -> Result<Option<CommitStatus>, String> {
        let provider = provider("github", |provider| {
            provider.commit_status_expr = expression.map(str::to_owned);
            provider.manifest = json!({"metadata": {"name": "prov"}, "spec": {"channel": ""}});
        });
        let reader = StatusReader::new(&provider, Progressing::Skipped);
        read(&reader, sample).map_err(|failure| failure.detail)
    }

    #[test]
    fn the_status_follows_from_severity_and_reason() {
        let expected = |state, description: &str| CommitStatus {
            commit: "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291".into(),
            context: "kustomization/webapp/0c9c2e41".into(),
            state,
            description: description.into(),
            target_url: None,
        };
        assert_eq!(
            status(&Sample::info(), None),
            Ok(Some(expected(
                CommitState::Success,
                "reconciliation succeeded"
            )))
        );
        assert_eq!(
            status(&Sample::error(), None),
            Ok(Some(expected(CommitState::Failure, "health check failed")))
        );
        let mut traced = Sample::info();
        traced.event.severity = "trace".into();
        assert!(status(&traced, None).unwrap_err().contains("\"trace\""));
    }

    #[test]
    fn an_event_that_says_nothing_about_the_commit_sets_no_status() {
        let mut waits = Sample::info();
        waits.event.reason = "DependencyNotReady".into();
        assert_eq!(status(&waits, None), Ok(None));
        waits.event.reason = "Deployed".into();
        assert_eq!(status(&waits, None), Ok(None));
        let provider = provider("github", |provider| {
            provider.reason_states = [("Deployed".into(), ObjectState::Success)].into();
        });
        let reader = StatusReader::new(&provider, Progressing::Skipped);
        let status = read(&reader, &waits).unwrap();
        assert_eq!(status.unwrap().state, CommitState::Success);
    }

    #[test]
    fn progress_is_skipped_or_pending() {
        let mut sample = Sample::info();
        sample.event.reason = "Progressing".into();
        assert_eq!(status(&sample, None), Ok(None));
        let reader = StatusReader::new(&provider("gitea", |_| ()), Progressing::Pending);
        let pending = read(&reader, &sample).unwrap().unwrap();
        assert_eq!(
            (pending.state, pending.description.as_str()),
            (CommitState::Pending, "progressing")
        );
    }

    #[test]
    fn options_enable_pending_a_qualified_id_and_a_link() {
        let mut sample = Sample::info();
        sample.event.reason = "Progressing".into();
        sample.event.cluster = "Eu-1".into();
        sample.rendered.target_url = Some("https://h/webapp".into());
        let options = tidings_rules::CommitStatusOptions {
            pending: true,
            qualified_id: true,
            target_url: None,
        };
        let provider = provider("github", |provider| provider.commit_status = options);
        let reader = StatusReader::new(&provider, Progressing::Skipped);
        let status = read(&reader, &sample).unwrap().unwrap();
        assert_eq!(
            (status.state, status.context.as_str()),
            (
                CommitState::Pending,
                "eu-1/apps/kustomization/webapp/0c9c2e41"
            )
        );
        assert_eq!(status.target_url.as_deref(), Some("https://h/webapp"));
        assert!(
            status.links_to(Some("https://h/webapp"))
                && !status.links_to(Some("https://h/other"))
                && !status.links_to(None)
        );
    }

    #[test]
    fn a_state_without_a_link_keeps_its_stored_bytes() {
        let status = status(&Sample::info(), None).unwrap().unwrap();
        let stored = serde_json::to_value(&status).unwrap();
        assert_eq!(
            stored.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["commit", "context", "verdict", "description"]
        );
        assert_eq!(
            serde_json::from_value::<CommitStatus>(stored).unwrap(),
            status
        );
    }

    #[test]
    fn an_expression_gives_the_context() {
        let context =
            |source| status(&Sample::info(), Some(source)).map(|status| status.unwrap().context);
        assert_eq!(
            context(""),
            Ok("kustomization/webapp/0c9c2e41".into()),
            "an empty one counts as none"
        );
        assert_eq!(
            context("event.metadata.cluster + alert.metadata.name"),
            Ok("prod-1webapp-alert".into())
        );
        assert_eq!(
            context("has(provider.spec.channel) ? 'empty' : 'absent'"),
            Ok("absent".into())
        );
        assert!(context("event.metadata.nosuchkey").is_err());
        let mut progressing = Sample::info();
        progressing.event.reason = "Progressing".into();
        assert!(
            status(&progressing, Some("42")).is_err(),
            "a wrong expression shows with every event"
        );
    }

    #[test]
    fn one_status_has_one_key() {
        let key = |prefix: &str, commit: &str| desired(prefix, commit, "Ctx", &()).key;
        assert_eq!(
            key("github Api.Github.com Org/Repo", "ABC"),
            key("github api.github.com org/repo", "abc")
        );
        assert!(key("p", "c").ends_with(" Ctx"));
    }
}
