//! `giteapullrequestcomment`: a comment on the pull request that the event names, edited with every event.
//!
//! API: <https://docs.gitea.com/api/>, `issueCreateComment`. A retry after a lost answer can leave a second comment; the next
//! edit goes to the first.

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use tokio::sync::OnceCell;

use super::forge::comment::{Comment, CommentWriter, Existing, held_of, is_gone, sent};
use super::forge::commit_status::state_of;
use super::forge::gitea_api::{Gitea, NEEDS};
use super::forge::page::{MOST_PAGES, has_next};
use super::{Desired, Held, Invalid, KeepState, Notifier, ProviderType, Sent};
use crate::http::{Answer, Http};
use crate::notification::Notification;

/// The row of the table.
pub const TYPE: ProviderType = ProviderType {
    kind: "giteapullrequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on pull requests of Gitea and Forgejo",
    needs: NEEDS,
    build,
};

struct PullRequestComment {
    gitea: Gitea,
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
    Ok(Notifier::State(Box::new(PullRequestComment { gitea: Gitea::new(provider, http)?, writer, login: OnceCell::new() })))
}

#[async_trait]
impl KeepState for PullRequestComment {
    async fn prepare(&self, _notification: &Notification<'_>) -> Result<(), Failure> {
        self.gitea.check_version().await?;
        self.login().await.map(|_| ())
    }

    fn desire(&self, notification: &Notification<'_>) -> Result<Option<Desired>, Failure> {
        self.writer.desired(&self.gitea.place(), notification).map(Some)
    }

    async fn read(&self, desired: &Desired) -> Result<Held, Failure> {
        let comment: Comment = state_of(desired)?;
        let login = self.login().await?;
        for page in 1..=MOST_PAGES {
            let path = format!("issues/{}/comments?limit=100&page={page}", comment.number);
            let answer = self.gitea.send(self.gitea.request(Method::GET, &path)?).await?;
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
        self.login.get_or_try_init(|| self.gitea.login()).await.map(String::as_str)
    }

    async fn put(&self, method: Method, path: &str, comment: &Comment) -> Result<Answer, Failure> {
        let body = serde_json::json!({"body": comment.body});
        self.gitea.send(self.gitea.request(method, path)?.json(&body)).await
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
    use super::*;
    use crate::notifier::sample::{self, Sample, body, requests, secret};

    #[tokio::test]
    async fn version_and_login_are_asked_then_the_list_then_a_comment_is_made() {
        let provider = sample::provider("giteapullrequestcomment", |provider| {
            provider.address = "https://gitea.example.com/acme/deploy".into();
            provider.secret = secret(&[("token", "gta")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made.iter().map(|request| format!("{} {}", request.method, request.url)).collect();
        let comments = "https://gitea.example.com/api/v1/repos/acme/deploy/issues/42/comments";
        assert_eq!(
            calls,
            [
                "GET https://gitea.example.com/api/v1/version".to_owned(),
                "GET https://gitea.example.com/api/v1/user".to_owned(),
                format!("GET {comments}?limit=100&page=1"),
                format!("POST {comments}"),
            ]
        );
        assert!(body(&made[3])["body"].as_str().unwrap().starts_with("<!-- flux-pr-comment-key:0c9c2e41-"));
    }
}
