//! `githubpullrequestcomment`: a comment on the pull request that the event names, edited for
//! every event.
//!
//! API: <https://docs.github.com/en/rest/issues/comments>. A retry after a lost
//! response can create a second comment. The next edit changes the first.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::{Mentions, OF_FORGES};
use super::contract::{Notifier, ProviderType};
use super::forge::comment::{ChangeRequests, Comments, LongestComment};
use super::forge::github_api::{GitHub, NEEDS, RATE_LIMITS};
use super::forge::github_http::ACCEPT;
use super::forge::page::and_page;
use crate::http::invalid::Invalid;
use crate::http::{Http, Response};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::payload::fit::CHARACTERS;

const LONGEST_COMMENT: LongestComment = LongestComment {
    unit: CHARACTERS,
    most: 65_536,
};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "githubpullrequestcomment",
    family: Family::ChangeRequest,
    summary: "comments on pull requests of GitHub",
    needs: NEEDS,
    cut_at: "65,536",
    sent_twice: "the first comment is edited",
    build,
    rate_limits: RATE_LIMITS,
    mentions: Mentions::of(
        "https://docs.github.com/get-started/writing-on-github/getting-started-with-writing-and-formatting-on-github/basic-writing-and-formatting-syntax#mentioning-people-and-teams",
        &[OF_FORGES],
    ),
    size_limits: SizeLimits {
        source: "https://docs.github.com/en/rest/issues/comments",
        body: BodyLimit::Parts,
        parts: &[SizeLimit::characters("/body", LONGEST_COMMENT.most)],
    },
    ..ProviderType::DEFAULT
};

/// The media type that Flux uses to list comments.
const WITH_REACTIONS: &str = "application/vnd.github.squirrel-girl-preview";

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let forge = GitHub::new(provider, http)?;
    Ok(Notifier::State(Box::new(Comments::new(
        "flux-pr-comment-key",
        LONGEST_COMMENT,
        provider,
        forge,
    ))))
}

#[async_trait]
impl ChangeRequests for GitHub {
    fn key_prefix(&self) -> String {
        GitHub::key_prefix(self)
    }

    async fn login(&self) -> Result<String, Failure> {
        GitHub::login(self).await
    }

    fn list_path(&self, number: i64, page: u32) -> String {
        let and_page = and_page(page);
        format!("issues/{number}/comments?direction=asc&per_page=100&sort=created{and_page}")
    }

    fn create_path(&self, number: i64) -> String {
        format!("issues/{number}/comments")
    }

    fn edit_path(&self, _number: i64, id: &str) -> (Method, String) {
        (Method::PATCH, format!("issues/comments/{id}"))
    }

    async fn list(&self, path: &str) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path, WITH_REACTIONS).await?)
            .await
    }

    async fn put(&self, method: Method, path: &str, body: &Value) -> Result<Response, Failure> {
        self.send(self.request(method, path, ACCEPT).await?.json(body))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::service::scripted;
    use super::*;
    use crate::notifier::contract::{RemoteState, Sent};
    use crate::notifier::sample::{self, Sample, body, requests, secret};

    #[tokio::test]
    async fn login_and_list_are_read_before_a_comment_is_created() {
        let provider = sample::provider("githubpullrequestcomment", |provider| {
            provider.address = "https://github.com/acme/deploy".into();
            provider.secret = secret(&[("token", "ghp")]);
        });
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let made = requests(&TYPE, &provider, &sample).await;
        let calls: Vec<String> = made
            .iter()
            .map(|request| format!("{} {}", request.method, request.url))
            .collect();
        let comments = "https://api.github.com/repos/acme/deploy/issues/42/comments";
        assert_eq!(
            calls,
            [
                "GET https://api.github.com/user".to_owned(),
                format!("GET {comments}?direction=asc&per_page=100&sort=created"),
                format!("POST {comments}"),
            ]
        );
        assert!(
            body(&made[2])["body"]
                .as_str()
                .unwrap()
                .starts_with("<!-- flux-pr-comment-key:0c9c2e41-")
        );
    }

    #[tokio::test]
    async fn a_comment_is_edited_and_found_again_if_it_was_deleted() {
        let (comments, calls) = scripted(
            &TYPE,
            &[
                ("GET /api/v3/user", 200, "", r#"{"login": "bot"}"#),
                (
                    concat!(
                        "GET /api/v3/repos/acme/deploy/issues/42/comments",
                        "?direction=asc&per_page=100&sort=created"
                    ),
                    200,
                    "",
                    concat!(
                        r#"[{"id": 1, "user": {"login": "human"}, "body": "lgtm"}, "#,
                        r#"{"id": 2, "user": {"login": "bot"}, "body": "<!-- flux-pr-comment-key:"#,
                        "0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a/Kustomization/apps/webapp --> ",
                        r#"old"}]"#
                    ),
                ),
                (
                    "PATCH /api/v3/repos/acme/deploy/issues/comments/2",
                    200,
                    "",
                    r#"{"id": 2}"#,
                ),
                (
                    "POST /api/v3/repos/acme/deploy/issues/42/comments",
                    201,
                    "",
                    r#"{"id": 77}"#,
                ),
            ],
        )
        .await;
        let mut sample = Sample::info();
        sample.metadata.insert("change_request".into(), "42".into());
        let message = sample.message();
        comments.prepare(&message).await.unwrap();
        let desired = comments.desire(&message).await.unwrap().unwrap();
        assert_eq!(
            comments.read(&desired).await,
            Ok(RemoteState::Other {
                handle: Some("2".into())
            })
        );
        let written = |status, id: &str| {
            Ok(Sent::Accepted {
                status: Some(status),
                handle: Some(id.into()),
            })
        };
        assert_eq!(comments.write(&desired, Some("2")).await, written(200, "2"));
        assert_eq!(
            comments.write(&desired, Some("3")).await,
            written(200, "2"),
            "3 is gone, and 2 has the mark"
        );
        assert_eq!(comments.write(&desired, None).await, written(201, "77"));
        let calls = calls.lock();
        assert_eq!(
            calls.iter().filter(|call| call.ends_with("/user")).count(),
            1,
            "{calls:?}"
        );
    }
}
