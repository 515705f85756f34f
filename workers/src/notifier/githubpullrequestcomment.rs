//! `githubpullrequestcomment`: a comment on the pull request that the event names, edited with every event.
//!
//! API: <https://docs.github.com/en/rest/issues/comments>. A retry after a lost answer can leave a second comment; the next
//! edit goes to the first.

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use tokio::sync::OnceCell;

use super::forge::comment::{Comment, CommentWriter, Existing, held_of, is_gone, sent};
use super::forge::commit_status::state_of;
use super::forge::github_api::{ACCEPT, GitHub, NEEDS};
use super::forge::page::{MOST_PAGES, has_next};
use super::{Desired, Held, Invalid, KeepState, Notifier, ProviderType, Sent};
use crate::http::{Answer, Http};
use crate::notification::Notification;

/// The row of the table.
pub const TYPE: ProviderType = ProviderType {
    kind: "githubpullrequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on pull requests of GitHub",
    needs: NEEDS,
    build,
};

/// Comments with their reactions.
const WITH_REACTIONS: &str = "application/vnd.github.squirrel-girl-preview";

struct PullRequestComment {
    github: GitHub,
    writer: CommentWriter,
    login: OnceCell<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: u64,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    body: Option<String>,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let writer = CommentWriter::new("flux-pr-comment-key", provider);
    Ok(Notifier::State(Box::new(PullRequestComment { github: GitHub::new(provider, http)?, writer, login: OnceCell::new() })))
}

#[async_trait]
impl KeepState for PullRequestComment {
    async fn prepare(&self, _notification: &Notification<'_>) -> Result<(), Failure> {
        self.login().await.map(|_| ())
    }

    fn desire(&self, notification: &Notification<'_>) -> Result<Option<Desired>, Failure> {
        self.writer.desired(&self.github.place(), notification).map(Some)
    }

    async fn read(&self, desired: &Desired) -> Result<Held, Failure> {
        let comment: Comment = state_of(desired)?;
        let login = self.login().await?;
        for page in 1..=MOST_PAGES {
            let and_page = if page == 1 { String::new() } else { format!("&page={page}") };
            let path = format!("issues/{}/comments?direction=asc&per_page=100&sort=created{and_page}", comment.number);
            let answer = self.github.send(self.github.request(Method::GET, &path, WITH_REACTIONS).await?).await?;
            let entries = answer.json::<Vec<Entry>>().unwrap_or_default();
            if let Some(held) = held_of(entries.into_iter().map(Existing::from), login, &comment) {
                return Ok(held);
            }
            if !has_next(&answer) {
                break;
            }
        }
        Ok(Held::Unknown)
    }

    async fn write(&self, desired: &Desired, handle: Option<&str>) -> Result<Sent, Failure> {
        let comment: Comment = state_of(desired)?;
        if let Some(id) = handle {
            let edited = self.put(Method::PATCH, &format!("issues/comments/{id}"), &comment).await;
            if !is_gone(&edited) {
                return edited.map(|answer| sent(&answer, handle));
            }
        }
        let created = self.put(Method::POST, &format!("issues/{}/comments", comment.number), &comment).await?;
        Ok(sent(&created, None))
    }
}

impl PullRequestComment {
    async fn login(&self) -> Result<&str, Failure> {
        self.login.get_or_try_init(|| self.github.login()).await.map(String::as_str)
    }

    async fn put(&self, method: Method, path: &str, comment: &Comment) -> Result<Answer, Failure> {
        let body = serde_json::json!({"body": comment.body});
        self.github.send(self.github.request(method, path, ACCEPT).await?.json(&body)).await
    }
}

impl From<Entry> for Existing {
    fn from(entry: Entry) -> Self {
        let author = entry.user.map(|user| user.login).unwrap_or_default();
        Self { id: entry.id, author, body: entry.body.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::service::scripted;
    use super::*;
    use crate::notifier::sample::{self, Sample, body, requests, secret};

    #[tokio::test]
    async fn who_we_are_is_asked_then_the_list_then_a_comment_is_made() {
        let provider = sample::provider("githubpullrequestcomment", |provider| {
            provider.address = "https://github.com/acme/deploy".into();
            provider.secret = secret(&[("token", "ghp")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made.iter().map(|request| format!("{} {}", request.method, request.url)).collect();
        let comments = "https://api.github.com/repos/acme/deploy/issues/42/comments";
        assert_eq!(
            calls,
            [
                "GET https://api.github.com/user".to_owned(),
                format!("GET {comments}?direction=asc&per_page=100&sort=created"),
                format!("POST {comments}"),
            ]
        );
        assert!(body(&made[2])["body"].as_str().unwrap().starts_with("<!-- flux-pr-comment-key:0c9c2e41-"));
    }

    #[tokio::test]
    async fn a_comment_is_edited_and_made_anew_when_it_is_gone() {
        let (comments, calls) = scripted(
            &TYPE,
            &[
                ("GET /api/v3/user", 200, "", r#"{"login": "bot"}"#),
                (
                    "GET /api/v3/repos/acme/deploy/issues/42/comments?direction=asc&per_page=100&sort=created",
                    200,
                    "",
                    r#"[{"id": 1, "user": {"login": "human"}, "body": "lgtm"}, {"id": 2, "user": {"login": "bot"}, "body":
                       "<!-- flux-pr-comment-key:0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a/Kustomization/apps/webapp --> old"}]"#,
                ),
                ("PATCH /api/v3/repos/acme/deploy/issues/comments/2", 200, "", r#"{"id": 2}"#),
                ("POST /api/v3/repos/acme/deploy/issues/42/comments", 201, "", r#"{"id": 77}"#),
            ],
        )
        .await;
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let notification = sample.notification();
        comments.prepare(&notification).await.unwrap();
        let desired = comments.desire(&notification).unwrap().unwrap();
        assert_eq!(comments.read(&desired).await, Ok(Held::Other { handle: Some("2".into()) }));
        let written = |status, id: &str| Ok(Sent::Accepted { status: Some(status), handle: Some(id.into()) });
        assert_eq!(comments.write(&desired, Some("2")).await, written(200, "2"));
        assert_eq!(comments.write(&desired, Some("3")).await, written(201, "77"));
        let calls = calls.lock().unwrap();
        assert_eq!(calls.iter().filter(|call| call.ends_with("/user")).count(), 1, "{calls:?}");
    }
}
