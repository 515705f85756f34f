//! Comments on change requests. Each object has one comment, which carries an invisible mark and is
//! edited.

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;
use tokio::sync::OnceCell;

use super::page::{Entries, MOST_PAGES_OF_COMMENTS, has_next};
use crate::http::Response;
use crate::message::Message;
use crate::notifier::contract::{DesiredState, KeepState, RemoteState, Sent};
use crate::notifier::payload::fit::{Unit, fit};

/// The comment that an event asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Comment {
    /// The number of the change request.
    number: i64,
    /// Identifies the comment: an HTML comment that names Provider and object.
    mark: String,
    /// The whole text, including the mark.
    body: String,
}

/// The longest comment that a forge accepts.
#[derive(Clone, Copy)]
pub struct LongestComment {
    /// How it counts.
    pub unit: Unit,
    /// The most that it accepts.
    pub most: usize,
}

/// Writes the texts of one Provider's comments.
struct CommentWriter {
    longest: LongestComment,
    prefix: &'static str,
    provider_uid: String,
}

/// The calls that differ between forges.
#[async_trait]
pub trait ChangeRequests: Send + Sync {
    /// The names of forge and repository, with which keys start.
    fn key_prefix(&self) -> String;

    /// The login of the token's account.
    async fn login(&self) -> Result<String, Failure>;

    /// The path that lists a page of up to 100 comments, oldest first.
    fn list_path(&self, number: i64, page: u32) -> String;

    /// The path that creates a comment.
    fn create_path(&self, number: i64) -> String;

    /// The method and path that edit a comment.
    fn edit_path(&self, number: i64, id: &str) -> (Method, String);

    /// Gets a page of comments.
    async fn list(&self, path: &str) -> Result<Response, Failure>;

    /// Sends a comment's text.
    async fn put(&self, method: Method, path: &str, body: &Value) -> Result<Response, Failure>;
}

/// Keeps the comments of one Provider in one repository.
pub struct Comments<F> {
    forge: F,
    writer: CommentWriter,
    login: OnceCell<String>,
}

/// A comment that exists at the forge.
#[derive(Clone, Debug, Deserialize)]
struct Existing {
    id: u64,
    /// GitLab calls it `author`.
    #[serde(default, alias = "author")]
    user: Option<User>,
    #[serde(default)]
    body: Option<String>,
}

/// GitHub has a `login`, GitLab a `username`, and Gitea both.
#[derive(Clone, Debug, Default, Deserialize)]
struct User {
    login: Option<String>,
    username: Option<String>,
}

impl User {
    fn is(&self, login: &str) -> bool {
        self.login
            .as_ref()
            .or(self.username.as_ref())
            .is_some_and(|name| name == login)
    }
}

#[derive(Deserialize)]
struct Created {
    id: u64,
}

// === impl Comment ===

impl Comment {
    /// The body of the request that creates or edits the comment.
    fn put(&self) -> Value {
        json!({"body": self.body})
    }
}

// === impl CommentWriter ===

impl CommentWriter {
    /// `prefix` is the start of the mark. Flux uses one for GitHub and Gitea, and another for
    /// GitLab.
    fn new(prefix: &'static str, longest: LongestComment, provider: &ResolvedProvider) -> Self {
        Self {
            longest,
            prefix,
            provider_uid: provider.uid.clone(),
        }
    }

    /// The comment that an event asks for. `key_prefix` names forge and repository.
    ///
    /// # Errors
    /// Permanent: the event names no change request by number.
    fn desired(&self, key_prefix: &str, message: &Message<'_>) -> Result<DesiredState, Failure> {
        let number = message
            .metadata
            .get("change_request")
            .map(String::as_str)
            .unwrap_or_default();
        let number: i64 = number.parse().map_err(|_| {
            let detail = format!(
                "the event names no change request: its metadata change_request is {number:?}, not \
                 a number; correct the annotation event.toolkit.fluxcd.io/change_request"
            );
            Failure::permanent(Reason::Misconfigured, detail)
        })?;
        let mark = format!(
            "<!-- {}:{}/{} -->",
            self.prefix,
            self.provider_uid,
            message.object_path_in_fleet()
        );
        let room = self.longest.most.saturating_sub(mark.len() + 2);
        let text = markdown(message, self.longest.unit, room);
        let body = format!("{mark}\n\n{text}");
        let key = format!(
            "{} change request {number} {mark}",
            key_prefix.to_lowercase()
        );
        Ok(DesiredState::new(key, &Comment { number, mark, body }))
    }
}

// === impl Comments ===

impl<F> Comments<F> {
    /// `prefix` is the start of the mark.
    pub fn new(
        prefix: &'static str,
        longest: LongestComment,
        provider: &ResolvedProvider,
        forge: F,
    ) -> Self {
        Self {
            forge,
            writer: CommentWriter::new(prefix, longest, provider),
            login: OnceCell::new(),
        }
    }
}

impl<F: ChangeRequests> Comments<F> {
    /// Finds our own comment with the mark on all pages.
    async fn find(&self, comment: &Comment) -> Result<RemoteState, Failure> {
        let login = self.login().await?;
        for page in 1..=MOST_PAGES_OF_COMMENTS {
            let response = self
                .forge
                .list(&self.forge.list_path(comment.number, page))
                .await?;
            let Entries(existing) = response.parsed()?;
            if let Some(remote) = remote_state_of(existing, login, comment) {
                return Ok(remote);
            }
            if !has_next(&response) {
                break;
            }
        }
        Ok(RemoteState::Unknown)
    }

    async fn edit(&self, comment: &Comment, id: &str) -> Result<Sent, Failure> {
        let (method, path) = self.forge.edit_path(comment.number, id);
        let edited = self.forge.put(method, &path, &comment.put()).await;
        edited.map(|response| sent(&response, Some(id)))
    }

    async fn login(&self) -> Result<&str, Failure> {
        self.login
            .get_or_try_init(|| self.forge.login())
            .await
            .map(String::as_str)
    }
}

#[async_trait]
impl<F: ChangeRequests> KeepState for Comments<F> {
    async fn prepare(&self, _message: &Message<'_>) -> Result<(), Failure> {
        self.login().await.map(|_| ())
    }

    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        self.writer
            .desired(&self.forge.key_prefix(), message)
            .map(Some)
    }

    fn needs_handle(&self) -> bool {
        true
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        self.find(&desired.decode()?).await
    }

    async fn write(&self, desired: &DesiredState, handle: Option<&str>) -> Result<Sent, Failure> {
        let comment: Comment = desired.decode()?;
        if let Some(id) = handle {
            let edited = self.edit(&comment, id).await;
            if !is_gone(&edited) {
                return edited;
            }
            // A user deleted the comment. An earlier attempt may have created another.
            match self.find(&comment).await? {
                RemoteState::Same { handle } => {
                    return Ok(Sent::Accepted {
                        status: None,
                        handle,
                    });
                }
                RemoteState::Other { handle: Some(id) } => return self.edit(&comment, &id).await,
                RemoteState::Other { handle: None } | RemoteState::Unknown => {}
            }
        }
        let created = self
            .forge
            .put(
                Method::POST,
                &self.forge.create_path(comment.number),
                &comment.put(),
            )
            .await?;
        Ok(sent(&created, None))
    }
}

/// The first comment by `login` with the mark.
fn remote_state_of(existing: Vec<Existing>, login: &str, comment: &Comment) -> Option<RemoteState> {
    let is_ours = |existing: &Existing| {
        existing.user.as_ref().is_some_and(|user| user.is(login))
            && existing
                .body
                .as_ref()
                .is_some_and(|body| body.contains(&comment.mark))
    };
    let ours = existing.into_iter().find(is_ours)?;
    let handle = Some(ours.id.to_string());
    let is_same = ours
        .body
        .is_some_and(|body| is_same_text(&body, &comment.body));
    Some(if is_same {
        RemoteState::Same { handle }
    } else {
        RemoteState::Other { handle }
    })
}

/// Forges may change line endings and trim the end of a text.
fn is_same_text(remote: &str, wanted: &str) -> bool {
    remote.trim_end().lines().eq(wanted.trim_end().lines())
}

/// The comment was written. The next edit needs its id.
fn sent(response: &Response, handle: Option<&str>) -> Sent {
    let created = response
        .json::<Created>()
        .map(|created| created.id.to_string());
    Sent::Accepted {
        status: Some(response.status),
        handle: handle.map(str::to_owned).or(created),
    }
}

/// Whether the comment to edit no longer exists.
fn is_gone(edited: &Result<Sent, Failure>) -> bool {
    edited
        .as_ref()
        .is_err_and(|failure| matches!(failure.status, Some(404 | 410)))
}

fn markdown(message: &Message<'_>, unit: Unit, room: usize) -> String {
    let emoji = if message.is_error() {
        "⚠️"
    } else {
        "ℹ️"
    };
    let heading = match &message.rendered.title {
        Some(_) => format!("## {emoji} {}\n\n", message.title()),
        None => {
            let title = message.title_or(|| message.object_path());
            format!("## Flux Status\n\n{emoji} {title}\n\n")
        }
    };
    let metadata_heading = if message.is_templated() {
        "\n"
    } else {
        "\n\nMetadata:\n"
    };
    let links = match message.markdown_links("\n") {
        links if links.is_empty() => links,
        links => format!("\n{links}"),
    };
    let line = |key: &str, value: &str| format!("* `{key}`: {value}\n");
    let around = (unit.size)(&heading) + metadata_heading.len() + (unit.size)(&links);
    let fields = message
        .metadata
        .iter()
        .filter(|(key, _)| *key != "change_request" && !message.is_templated());
    let fitted = fit(
        unit,
        room.saturating_sub(around),
        message.text(),
        fields,
        line("", "").len(),
    );
    let lines = fitted.lines(line);
    format!(
        "{heading}{}{metadata_heading}{lines}{links}",
        fitted.message
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::payload::fit::CHARACTERS;
    use crate::notifier::sample::{Sample, provider, response};

    fn comment(number: &str) -> Result<Comment, String> {
        let mut sample = Sample::error();
        sample
            .metadata
            .insert("change_request".into(), number.into());
        let writer = CommentWriter::new(
            "flux-pr-comment-key",
            LongestComment {
                unit: CHARACTERS,
                most: 65_536,
            },
            &provider("githubpullrequestcomment", |_| ()),
        );
        let desired = writer.desired("github api.github.com/acme/deploy", &sample.message());
        desired
            .map(|desired| desired.decode().unwrap())
            .map_err(|failure| failure.detail)
    }

    #[test]
    fn a_comment_starts_with_its_mark() {
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
    fn our_first_comment_with_the_mark_is_edited() {
        let comment = comment("42").unwrap();
        let by = |id, author: &str, body: &str| Existing {
            id,
            user: Some(User {
                login: Some(author.into()),
                username: None,
            }),
            body: Some(body.into()),
        };
        let others = vec![by(1, "mallory", &comment.mark), by(2, "bot", "lgtm")];
        assert_eq!(remote_state_of(others.clone(), "bot", &comment), None);
        let ours = [
            by(3, "bot", &format!("{}\n\nold", comment.mark)),
            by(4, "bot", &comment.mark),
        ];
        let remote_state =
            remote_state_of(others.into_iter().chain(ours).collect(), "bot", &comment);
        assert_eq!(
            remote_state,
            Some(RemoteState::Other {
                handle: Some("3".into())
            })
        );
        let same = by(5, "bot", comment.body.replace('\n', "\r\n").trim_end());
        assert_eq!(
            remote_state_of(vec![same], "bot", &comment),
            Some(RemoteState::Same {
                handle: Some("5".into())
            })
        );
    }

    #[test]
    fn the_author_of_a_comment_is_recognized_on_every_forge() {
        let comment = comment("42").unwrap();
        for (field, names) in [
            ("user", r#""login": "bot""#),
            ("author", r#""username": "bot""#),
            ("user", r#""login": "bot", "username": "bot""#),
        ] {
            let text = format!(
                r#"[{{"id": 1, "{field}": {{{names}}}, "body": "{}"}}]"#,
                comment.mark
            );
            let existing: Vec<Existing> = serde_json::from_str(&text).unwrap();
            assert_eq!(
                remote_state_of(existing, "bot", &comment),
                Some(RemoteState::Other {
                    handle: Some("1".into())
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn the_id_of_a_new_comment_is_returned_as_the_handle() {
        let handle = |sent| match sent {
            Sent::Accepted { handle, .. } => handle,
            Sent::Skipped(_) => None,
        };
        assert_eq!(
            handle(sent(&response(201, r#"{"id": 77}"#), None)),
            Some("77".into())
        );
        assert_eq!(
            handle(sent(&response(200, r#"{"id": 78}"#), Some("3"))),
            Some("3".into())
        );
    }
}
