//! `github`: commit statuses on GitHub and GitHub Enterprise Server.
//!
//! API: <https://docs.github.com/en/rest/commits/statuses>. A status that is posted twice is listed
//! twice, which does no harm.

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use super::forge::commit_status::{
    CommitState, CommitStatus, Progressing, StatusReader, desired, remote_state,
};
use super::forge::github_api::{GitHub, NEEDS, RATE_LIMITS};
use super::forge::github_http::ACCEPT;
use super::forge::page::{Entries, MOST_PAGES, and_page, has_next};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};

const LONGEST_ID: usize = 255;
const LONGEST_DESCRIPTION: usize = 140;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "github",
    family: Family::CommitStatus,
    summary: "commit statuses on GitHub",
    needs: NEEDS,
    cut_at: "id 255, description 140",
    sent_twice: "listed twice, with the same state",
    build,
    rate_limits: RATE_LIMITS,
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://docs.github.com/en/rest/commits/statuses",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/context", LONGEST_ID),
            SizeLimit::characters("/description", LONGEST_DESCRIPTION),
        ],
    },
    ..ProviderType::DEFAULT
};

struct GithubStatus {
    github: GitHub,
    statuses: StatusReader,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let statuses = StatusReader::new(provider, Progressing::Skipped);
    Ok(Notifier::State(Box::new(GithubStatus {
        github: GitHub::new(provider, http)?,
        statuses,
    })))
}

#[async_trait]
impl KeepState for GithubStatus {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let status = self.statuses.status(message).await?;
        Ok(status.map(|status| {
            let status = status.fitted(LONGEST_ID, LONGEST_DESCRIPTION);
            desired(
                &self.github.key_prefix(),
                &status.commit,
                &status.context,
                &status,
            )
        }))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let wanted: CommitStatus = desired.decode()?;
        for page in 1..=MOST_PAGES {
            let and_page = and_page(page);
            let path = format!("commits/{}/statuses?per_page=50{and_page}", wanted.commit);
            let response = self
                .github
                .send(self.github.request(Method::GET, &path, ACCEPT).await?)
                .await?;
            let Entries(entries) = response.parsed()?;
            if let Some(remote) = remote_state_of(&entries, &wanted) {
                return Ok(remote);
            }
            if !has_next(&response) {
                break;
            }
        }
        Ok(RemoteState::Unknown)
    }

    async fn write(&self, desired: &DesiredState, _handle: Option<&str>) -> Result<Sent, Failure> {
        let status: CommitStatus = desired.decode()?;
        let (context, description) = (&status.context, &status.description);
        let post = Post {
            state: state_name(status.state),
            context,
            description,
            target_url: status.target_url.as_deref(),
        };
        let request = self
            .github
            .request(Method::POST, &format!("statuses/{}", status.commit), ACCEPT)
            .await?
            .json(&post);
        Ok(Sent::accepted(self.github.send(request).await?.status))
    }
}

/// The state of the first entry with the context on a page. The list has the newest first.
fn remote_state_of(entries: &[Entry], wanted: &CommitStatus) -> Option<RemoteState> {
    let newest = entries
        .iter()
        .find(|entry| entry.context == wanted.context)?;
    let is_same = newest.state == state_name(wanted.state)
        && newest.description.as_deref() == Some(&wanted.description);
    Some(remote_state(
        is_same && wanted.links_to(newest.target_url.as_deref()),
    ))
}

fn state_name(state: CommitState) -> &'static str {
    match state {
        CommitState::Success => "success",
        CommitState::Failure => "failure",
        CommitState::Pending => "pending",
    }
}

#[derive(Serialize)]
struct Post<'a> {
    state: &'a str,
    context: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
}

#[derive(Deserialize)]
struct Entry {
    context: String,
    state: String,
    description: Option<String>,
    target_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::forge::service::scripted;
    use super::*;
    use crate::notifier::sample::{self, Sample, body, build_error, requests, secret};

    fn provider(address: &str, pairs: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("github", |provider| {
            provider.address = address.into();
            provider.secret = secret(pairs);
        })
    }

    #[tokio::test]
    async fn the_list_is_read_before_a_status_is_posted() {
        let provider = provider("git@github.com:acme/deploy.git", &[("token", "ghp_a\n")]);
        let made = requests(&TYPE, &provider, &Sample::error()).await;
        let urls: Vec<&str> = made.iter().map(|request| request.url.as_str()).collect();
        let commit = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        assert_eq!(
            urls,
            [
                format!(
                    "https://api.github.com/repos/acme/deploy/commits/{commit}/statuses?per_page=50"
                ),
                format!("https://api.github.com/repos/acme/deploy/statuses/{commit}"),
            ]
        );
        let status = serde_json::json!({"state": "failure",
            "context": "kustomization/webapp/0c9c2e41", "description": "health check failed"});
        assert_eq!(body(&made[1]), status);
        assert_eq!(made[1].headers["authorization"], "Bearer ghp_a");
        assert!(made[1].headers["authorization"].is_sensitive());
    }

    #[test]
    fn the_newest_entry_of_the_context_decides() {
        let mut wanted = CommitStatus {
            commit: String::new(),
            context: "ctx".into(),
            state: CommitState::Success,
            description: "fine".into(),
            target_url: None,
        };
        let entry = |context: &str, state: &str| Entry {
            context: context.into(),
            state: state.into(),
            description: Some("fine".into()),
            target_url: Some("https://h/a".into()),
        };
        assert_eq!(
            remote_state_of(&[entry("ci", "failure"), entry("ctx", "success")], &wanted),
            Some(remote_state(true))
        );
        assert_eq!(
            remote_state_of(&[entry("ctx", "failure"), entry("ctx", "success")], &wanted),
            Some(remote_state(false))
        );
        assert_eq!(remote_state_of(&[entry("ci", "success")], &wanted), None);
        wanted.target_url = Some("https://h/b".into());
        assert_eq!(
            remote_state_of(&[entry("ctx", "success")], &wanted),
            Some(remote_state(false)),
            "another link is another state"
        );
    }

    #[tokio::test]
    async fn pages_are_read_until_the_context_is_found() {
        let (github, calls) = scripted(
            &TYPE,
            &[
                (
                    concat!(
                        "GET /api/v3/repos/acme/deploy/commits/",
                        "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291/statuses?per_page=50"
                    ),
                    200,
                    "<http://elsewhere/?page=2>; rel=\"next\"",
                    r#"[{"context": "ci/build", "state": "success"}]"#,
                ),
                (
                    concat!(
                        "GET /api/v3/repos/acme/deploy/commits/",
                        "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291/statuses?per_page=50&page=2"
                    ),
                    200,
                    "<http://elsewhere/?page=3>; rel=\"next\"",
                    r#"[{"context": "kustomization/webapp/0c9c2e41", "state": "success",
                        "description": "reconciliation succeeded"}]"#,
                ),
            ],
        )
        .await;
        let desired = github
            .desire(&Sample::info().message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(github.read(&desired).await, Ok(remote_state(true)));
        assert_eq!(calls.lock().len(), 2);
        let other = github
            .desire(&Sample::error().message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(github.read(&other).await, Ok(remote_state(false)));
        assert_eq!(desired.key, other.key);
    }

    #[test]
    fn address_and_credentials_are_validated() {
        assert!(
            build_error(
                &TYPE,
                &provider("https://github.com/acme/sub/deploy", &[("token", "t")])
            )
            .contains("OWNER/NAME")
        );
        assert!(
            build_error(&TYPE, &provider("https://github.com/acme/deploy", &[]))
                .contains("key token")
        );
        assert_eq!(
            build_error(
                &TYPE,
                &provider("https://github.com/acme/deploy", &[("password", "p")])
            ),
            ""
        );
    }
}
