//! `gitlabmergerequestcomment`: a note on the merge request that the event names, edited with every event.
//!
//! API: <https://docs.gitlab.com/api/notes/#merge-requests>. A retry after a lost answer can leave a second note; the next
//! edit goes to the first.

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use tokio::sync::OnceCell;

use super::forge::comment::{Comment, CommentWriter, Existing, held_of, is_gone, sent};
use super::forge::commit_status::state_of;
use super::forge::gitlab_api::{GitLab, NEEDS};
use super::forge::page::{MOST_PAGES, has_next};
use super::{Desired, Held, Invalid, KeepState, Notifier, ProviderType, Sent};
use crate::http::{Answer, Http};
use crate::notification::Notification;

/// The row of the table.
pub const TYPE: ProviderType = ProviderType {
    kind: "gitlabmergerequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on merge requests of GitLab",
    needs: NEEDS,
    build,
};

struct MergeRequestComment {
    gitlab: GitLab,
    writer: CommentWriter,
    username: OnceCell<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: u64,
    #[serde(default)]
    author: Option<User>,
    #[serde(default)]
    body: Option<String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let writer = CommentWriter::new("flux-mr-comment-key", provider);
    Ok(Notifier::State(Box::new(MergeRequestComment { gitlab: GitLab::new(provider, http)?, writer, username: OnceCell::new() })))
}

#[async_trait]
impl KeepState for MergeRequestComment {
    async fn prepare(&self, _notification: &Notification<'_>) -> Result<(), Failure> {
        self.username().await.map(|_| ())
    }

    fn desire(&self, notification: &Notification<'_>) -> Result<Option<Desired>, Failure> {
        self.writer.desired(&self.gitlab.place(), notification).map(Some)
    }

    async fn read(&self, desired: &Desired) -> Result<Held, Failure> {
        let comment: Comment = state_of(desired)?;
        let username = self.username().await?;
        for page in 1..=MOST_PAGES {
            let and_page = if page == 1 { String::new() } else { format!("&page={page}") };
            let path = format!("merge_requests/{}/notes?order_by=created_at&per_page=100&sort=asc{and_page}", comment.number);
            let answer = self.gitlab.send(self.gitlab.request(Method::GET, &path)?).await?;
            let entries = answer.json::<Vec<Entry>>().unwrap_or_default();
            if let Some(held) = held_of(entries.into_iter().map(Existing::from), username, &comment) {
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
            let edited = self.put(Method::PUT, &format!("merge_requests/{}/notes/{id}", comment.number), &comment).await;
            if !is_gone(&edited) {
                return edited.map(|answer| sent(&answer, handle));
            }
        }
        let created = self.put(Method::POST, &format!("merge_requests/{}/notes", comment.number), &comment).await?;
        Ok(sent(&created, None))
    }
}

impl MergeRequestComment {
    async fn username(&self) -> Result<&str, Failure> {
        self.username.get_or_try_init(|| self.gitlab.username()).await.map(String::as_str)
    }

    async fn put(&self, method: Method, path: &str, comment: &Comment) -> Result<Answer, Failure> {
        let body = serde_json::json!({"body": comment.body});
        self.gitlab.send(self.gitlab.request(method, path)?.json(&body)).await
    }
}

impl From<Entry> for Existing {
    fn from(entry: Entry) -> Self {
        let author = entry.author.map(|user| user.username).unwrap_or_default();
        Self { id: entry.id, author, body: entry.body.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, requests, secret};

    #[tokio::test]
    async fn who_we_are_is_asked_then_the_list_then_a_note_is_made() {
        let provider = sample::provider("gitlabmergerequestcomment", |provider| {
            provider.address = "https://gitlab.example.com/grp/sub/deploy".into();
            provider.secret = secret(&[("token", "glpat")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made.iter().map(|request| format!("{} {}", request.method, request.url)).collect();
        let notes = "https://gitlab.example.com/api/v4/projects/grp%2Fsub%2Fdeploy/merge_requests/42/notes";
        assert_eq!(
            calls,
            [
                "GET https://gitlab.example.com/api/v4/user".to_owned(),
                format!("GET {notes}?order_by=created_at&per_page=100&sort=asc"),
                format!("POST {notes}"),
            ]
        );
        assert!(body(&made[2])["body"].as_str().unwrap().starts_with("<!-- flux-mr-comment-key:0c9c2e41-"));
    }
}
