//! `giteapullrequestcomment`: a comment on the pull request that the event names, edited for every
//! event.
//!
//! API: <https://docs.gitea.com/api/>, `issueCreateComment`. A retry after a lost
//! response can create a second comment. The next edit changes the first.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::{Mentions, OF_FORGES};
use super::contract::{Notifier, ProviderType};
use super::forge::comment::{ChangeRequests, Comments, LongestComment};
use super::forge::gitea_api::{Gitea, NEEDS};
use crate::http::invalid::Invalid;
use crate::http::{Http, Response};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::payload::fit::BYTES;

/// Before version 1.17, on MySQL. Later versions store longer ones.
const LONGEST_COMMENT: LongestComment = LongestComment {
    unit: BYTES,
    most: 65_535,
};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "giteapullrequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on pull requests of Gitea and Forgejo",
    needs: NEEDS,
    cut_at: "65,535 bytes",
    sent_twice: "the first comment is edited",
    build,
    mentions: Mentions::of(
        "https://docs.gitea.com/usage/issues-prs/linked-references",
        &[OF_FORGES],
    ),
    size_limits: SizeLimits {
        source: "https://github.com/go-gitea/gitea/blob/main/models/issues/comment.go",
        body: BodyLimit::Parts,
        parts: &[SizeLimit::bytes("/body", LONGEST_COMMENT.most)],
    },
    ..ProviderType::DEFAULT
};

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let forge = Gitea::new(provider, http)?;
    Ok(Notifier::State(Box::new(Comments::new(
        "flux-pr-comment-key",
        LONGEST_COMMENT,
        provider,
        forge,
    ))))
}

#[async_trait]
impl ChangeRequests for Gitea {
    fn key_prefix(&self) -> String {
        Gitea::key_prefix(self)
    }

    async fn login(&self) -> Result<String, Failure> {
        self.check_version().await?;
        Gitea::login(self).await
    }

    fn list_path(&self, number: i64, page: u32) -> String {
        format!("issues/{number}/comments?limit=100&page={page}")
    }

    fn create_path(&self, number: i64) -> String {
        format!("issues/{number}/comments")
    }

    fn edit_path(&self, _number: i64, id: &str) -> (Method, String) {
        (Method::PATCH, format!("issues/comments/{id}"))
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
    async fn version_login_and_list_are_read_before_a_comment_is_created() {
        let provider = sample::provider("giteapullrequestcomment", |provider| {
            provider.address = "https://gitea.example.com/acme/deploy".into();
            provider.secret = secret(&[("token", "gta")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made
            .iter()
            .map(|request| format!("{} {}", request.method, request.url))
            .collect();
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
        assert!(
            body(&made[3])["body"]
                .as_str()
                .unwrap()
                .starts_with("<!-- flux-pr-comment-key:0c9c2e41-")
        );
    }
}
