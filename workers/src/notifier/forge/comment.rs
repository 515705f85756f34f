//! Comments on change requests: one for each object, found again by an invisible mark and edited in place.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;

use crate::http::Answer;
use crate::notification::Notification;
use crate::notifier::{Desired, Held, Sent};

/// A comment as the event asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// The number of the change request.
    pub number: i64,
    /// What the comment is found by: an HTML comment that names Provider and object.
    pub mark: String,
    /// Its whole text, the mark included.
    pub body: String,
}

/// Writes the comments of one Provider.
pub struct CommentWriter {
    prefix: &'static str,
    provider_uid: String,
}

/// A comment that is there.
#[derive(Clone, Debug)]
pub struct Existing {
    /// The forge's id of it.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// Its text.
    pub body: String,
}

#[derive(Deserialize)]
struct Created {
    id: u64,
}

// === impl CommentWriter ===

impl CommentWriter {
    /// `prefix` begins the mark; Flux has one for GitHub and Gitea, and another for GitLab.
    pub fn new(prefix: &'static str, provider: &ResolvedProvider) -> Self {
        Self { prefix, provider_uid: provider.uid.clone() }
    }

    /// The comment that the event asks for. `place` names forge and repository.
    ///
    /// # Errors
    /// Permanent: the event names no change request by number.
    pub fn desired(&self, place: &str, notification: &Notification<'_>) -> Result<Desired, Failure> {
        let number = notification.metadata.get("change_request").map(String::as_str).unwrap_or_default();
        let number: i64 = number.parse().map_err(|_| {
            let detail = format!("the event names no change request: change_request in its metadata is {number:?}, not a number");
            Failure::permanent(Reason::Misconfigured, detail)
        })?;
        let mark = format!("<!-- {}:{}/{} -->", self.prefix, self.provider_uid, notification.object_path());
        let body = format!("{mark}\n\n{}", markdown(notification));
        let key = format!("{} change request {number} {mark}", place.to_lowercase());
        let state = serde_json::to_vec(&Comment { number, mark, body }).unwrap_or_default();
        Ok(Desired { key, state })
    }
}

/// The first comment by `author` with the mark. It is edited even if its text is right: what else it shows is not known.
pub fn held_of(existing: impl IntoIterator<Item = Existing>, author: &str, comment: &Comment) -> Option<Held> {
    let ours = existing.into_iter().find(|existing| existing.author == author && existing.body.contains(&comment.mark))?;
    Some(Held::Other { handle: Some(ours.id.to_string()) })
}

/// The comment was written; its id is remembered for the next edit.
pub fn sent(answer: &Answer, handle: Option<&str>) -> Sent {
    let created = answer.json::<Created>().map(|created| created.id.to_string());
    Sent::Accepted { status: Some(answer.status), handle: handle.map(str::to_owned).or(created) }
}

/// Whether the comment that was to be edited is gone: somebody has deleted it, and it is written anew.
pub fn is_gone(edited: &Result<Answer, Failure>) -> bool {
    edited.as_ref().is_err_and(|failure| matches!(failure.status, Some(404 | 410)))
}

fn markdown(notification: &Notification<'_>) -> String {
    let sign = if notification.is_error() { "⚠️" } else { "ℹ️" };
    let (path, message) = (notification.object_path(), &notification.event.message);
    let mut text = format!("## Flux Status\n\n{sign} {path}\n\n{message}\n\nMetadata:\n");
    for (key, value) in notification.metadata.iter().filter(|(key, _)| *key != "change_request") {
        writeln!(text, "* `{key}`: {value}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::forge::commit_status::state_of;
    use crate::notifier::sample::{Sample, answer, provider};

    fn comment(number: &str) -> Result<Comment, String> {
        let mut sample = Sample::error();
        sample.metadata.insert("change_request".into(), number.into());
        let writer = CommentWriter::new("flux-pr-comment-key", &provider("githubpullrequestcomment", |_| ()));
        let desired = writer.desired("github api.github.com/acme/deploy", &sample.notification());
        desired.map(|desired| state_of(&desired).unwrap()).map_err(|failure| failure.detail)
    }

    #[test]
    fn a_comment_begins_with_its_mark() {
        let comment = comment("42").unwrap();
        assert_eq!(comment.number, 42);
        insta::assert_snapshot!(comment.body, @r"
        <!-- flux-pr-comment-key:0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a/Kustomization/apps/webapp -->

        ## Flux Status

        ⚠️ Kustomization/apps/webapp

        Health check failed after 30s
        Deployment/web: not ready

        Metadata:
        * `cluster`: prod-1
        * `revision`: main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291
        * `summary`: Production is affected
        ");
    }

    #[test]
    fn a_change_request_has_a_number() {
        assert_eq!(comment("-1").map(|comment| comment.number), Ok(-1));
        assert!(comment("abc").unwrap_err().contains("\"abc\""));
        assert!(comment("").is_err());
    }

    #[test]
    fn the_first_comment_of_ones_own_with_the_mark_is_edited() {
        let comment = comment("42").unwrap();
        let by = |id, author: &str, body: &str| Existing { id, author: author.into(), body: body.into() };
        let others = vec![by(1, "mallory", &comment.mark), by(2, "bot", "lgtm")];
        assert_eq!(held_of(others.clone(), "bot", &comment), None);
        let ours = [by(3, "bot", &format!("{}\n\nold", comment.mark)), by(4, "bot", &comment.mark)];
        let held = held_of(others.into_iter().chain(ours), "bot", &comment);
        assert_eq!(held, Some(Held::Other { handle: Some("3".into()) }));
    }

    #[test]
    fn the_id_of_a_new_comment_is_remembered() {
        let handle = |sent| match sent {
            Sent::Accepted { handle, .. } => handle,
            Sent::Skipped(_) => None,
        };
        assert_eq!(handle(sent(&answer(201, r#"{"id": 77}"#), None)), Some("77".into()));
        assert_eq!(handle(sent(&answer(200, r#"{"id": 78}"#), Some("3"))), Some("3".into()));
    }
}
