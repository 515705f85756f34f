//! `gitlabmergerequestcomment`: a note on the merge request that the event names, edited for every
//! event.
//!
//! API: <https://docs.gitlab.com/api/notes/#merge-requests>. A retry after a lost response can create
//! a second note. The next edit changes the first.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::{Form, Mentions, OF_FORGES};
use super::contract::{Notifier, ProviderType};
use super::forge::comment::{ChangeRequests, Comments, LongestComment};
use super::forge::gitlab_api::{GitLab, NEEDS};
use super::forge::page::and_page;
use crate::http::invalid::Invalid;
use crate::http::{Http, Response};
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, rate,
};
use crate::notifier::payload::fit::BYTES;

/// GitLab counts characters, which are never more than the bytes.
const LONGEST_COMMENT: LongestComment = LongestComment {
    unit: BYTES,
    most: 1_000_000,
};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "gitlabmergerequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on merge requests of GitLab",
    needs: NEEDS,
    cut_at: "1,000,000 bytes",
    sent_twice: "the first comment is edited",
    build,
    rate_limits: RateLimits {
        scope: LimitScope::Account,
        rates: &[rate(300, 60)],
        source: "https://docs.gitlab.com/administration/settings/rate_limit_on_notes_creation/",
    },
    mentions: Mentions::of(
        "https://docs.gitlab.com/user/discussions/#mentions",
        &[
            OF_FORGES,
            // A quick action is carried out with the rights of the token.
            Form {
                example: "/close",
                pattern: r"(?m:^|\r)[ \t\r]*(/)[A-Za-z_]+(?:\s|$)",
                after_word: true,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://docs.gitlab.com/administration/instance_limits/#size-of-comments-and-descriptions-of-issues-merge-requests-and-epics",
        body: BodyLimit::Parts,
        parts: &[SizeLimit::characters("/body", LONGEST_COMMENT.most)],
    },
    ..ProviderType::DEFAULT
};

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let forge = GitLab::new(provider, http)?;
    Ok(Notifier::State(Box::new(Comments::new(
        "flux-mr-comment-key",
        LONGEST_COMMENT,
        provider,
        forge,
    ))))
}

#[async_trait]
impl ChangeRequests for GitLab {
    fn key_prefix(&self) -> String {
        GitLab::key_prefix(self)
    }

    async fn login(&self) -> Result<String, Failure> {
        self.username().await
    }

    fn list_path(&self, number: i64, page: u32) -> String {
        let and_page = and_page(page);
        format!("merge_requests/{number}/notes?order_by=created_at&per_page=100&sort=asc{and_page}")
    }

    fn create_path(&self, number: i64) -> String {
        format!("merge_requests/{number}/notes")
    }

    fn edit_path(&self, number: i64, id: &str) -> (Method, String) {
        (Method::PUT, format!("merge_requests/{number}/notes/{id}"))
    }

    async fn list(&self, path: &str) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path)?).await
    }

    async fn put(&self, method: Method, path: &str, body: &Value) -> Result<Response, Failure> {
        self.send(self.request(method, path)?.json(body)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, requests, secret};

    #[tokio::test]
    async fn login_and_list_are_read_before_a_note_is_created() {
        let provider = sample::provider("gitlabmergerequestcomment", |provider| {
            provider.address = "https://gitlab.example.com/grp/sub/deploy".into();
            provider.secret = secret(&[("token", "glpat")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made
            .iter()
            .map(|request| format!("{} {}", request.method, request.url))
            .collect();
        let notes =
            "https://gitlab.example.com/api/v4/projects/grp%2Fsub%2Fdeploy/merge_requests/42/notes";
        assert_eq!(
            calls,
            [
                "GET https://gitlab.example.com/api/v4/user".to_owned(),
                format!("GET {notes}?order_by=created_at&per_page=100&sort=asc"),
                format!("POST {notes}"),
            ]
        );
        assert!(
            body(&made[2])["body"]
                .as_str()
                .unwrap()
                .starts_with("<!-- flux-mr-comment-key:0c9c2e41-")
        );
    }
}
