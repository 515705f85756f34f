//! `gitlab`: commit statuses on GitLab.
//!
//! API: <https://docs.gitlab.com/api/commits/#commit-status>

use async_trait::async_trait;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use super::forge::commit_status::{
    CommitState, CommitStatus, Progressing, StatusReader, desired, remote_state,
};
use super::forge::gitlab_api::{GitLab, NEEDS};
use super::forge::page::{Entries, MOST_PAGES, and_page, has_next};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};

const LONGEST_ID: usize = 255;
const LONGEST_DESCRIPTION: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "gitlab",
    family: Family::CommitStatus,
    summary: "commit statuses on GitLab",
    needs: NEEDS,
    cut_at: "id 255, description 255",
    sent_twice: "the same",
    build,
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://gitlab.com/gitlab-org/gitlab/-/blob/master/app/models/commit_status.rb",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/name", LONGEST_ID),
            SizeLimit::characters("/description", LONGEST_DESCRIPTION),
            SizeLimit::characters("/target_url", 255),
        ],
    },
    ..ProviderType::DEFAULT
};

struct GitlabStatus {
    gitlab: GitLab,
    statuses: StatusReader,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let statuses = StatusReader::new(provider, Progressing::Skipped);
    Ok(Notifier::State(Box::new(GitlabStatus {
        gitlab: GitLab::new(provider, http)?,
        statuses,
    })))
}

#[async_trait]
impl KeepState for GitlabStatus {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let status = self.statuses.status(message).await?;
        Ok(status.map(|status| {
            let status = status.fitted(LONGEST_ID, LONGEST_DESCRIPTION);
            desired(
                &self.gitlab.key_prefix(),
                &status.commit,
                &status.context,
                &status,
            )
        }))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let wanted: CommitStatus = desired.decode()?;
        let name = utf8_percent_encode(&wanted.context, NON_ALPHANUMERIC);
        let mut entries: Vec<Entry> = Vec::new();
        for page in 1..=MOST_PAGES {
            let and_page = and_page(page);
            let path = format!(
                "repository/commits/{}/statuses?name={name}{and_page}",
                wanted.commit
            );
            let response = self
                .gitlab
                .send(self.gitlab.request(Method::GET, &path)?)
                .await?;
            entries.extend(response.parsed::<Entries<Entry>>()?.0);
            if !has_next(&response) {
                return Ok(remote_state_of(&entries, &wanted));
            }
        }
        // The newest entry may be on a page that was not read.
        Ok(RemoteState::Unknown)
    }

    async fn write(&self, desired: &DesiredState, _handle: Option<&str>) -> Result<Sent, Failure> {
        let status: CommitStatus = desired.decode()?;
        let (name, description) = (&status.context, &status.description);
        let post = Post {
            name,
            state: state_name(status.state),
            description,
            target_url: status.target_url.as_deref(),
        };
        let request = self
            .gitlab
            .request(Method::POST, &format!("statuses/{}", status.commit))?
            .json(&post);
        Ok(Sent::accepted(self.gitlab.send(request).await?.status))
    }
}

/// The state of the newest entry of the name. Older entries of the name do not count.
fn remote_state_of(entries: &[Entry], wanted: &CommitStatus) -> RemoteState {
    let of_this = entries.iter().filter(|entry| {
        entry.name == wanted.context && entry.sha.eq_ignore_ascii_case(&wanted.commit)
    });
    let newest = of_this.reduce(|newest, entry| if entry.id > newest.id { entry } else { newest });
    newest.map_or(RemoteState::Unknown, |newest| {
        let is_same = newest.status == state_name(wanted.state)
            && newest.description.as_deref() == Some(&wanted.description);
        remote_state(is_same && wanted.links_to(newest.target_url.as_deref()))
    })
}

fn state_name(state: CommitState) -> &'static str {
    match state {
        CommitState::Success => "success",
        CommitState::Failure => "failed",
        CommitState::Pending => "pending",
    }
}

#[derive(Serialize)]
struct Post<'a> {
    name: &'a str,
    state: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
}

#[derive(Deserialize)]
struct Entry {
    id: u64,
    sha: String,
    name: String,
    status: String,
    description: Option<String>,
    target_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::forge::service::scripted;
    use super::*;
    use crate::notifier::sample::{self, Sample, body, build_error, requests, secret};

    #[tokio::test]
    async fn the_list_of_the_name_is_read_before_a_status_is_posted() {
        let provider = sample::provider("gitlab", |provider| {
            provider.address = "https://gitlab.com/acme/sub/deploy".into();
            provider.secret = secret(&[("password", "glpat")]);
        });
        let made = requests(&TYPE, &provider, &Sample::error()).await;
        let commit = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        let project = "https://gitlab.com/api/v4/projects/acme%2Fsub%2Fdeploy";
        assert_eq!(
            made[0].url.as_str(),
            format!(
                "{project}/repository/commits/{commit}/statuses\
                 ?name=kustomization%2Fwebapp%2F0c9c2e41"
            )
        );
        assert_eq!(made[1].url.as_str(), format!("{project}/statuses/{commit}"));
        let status = serde_json::json!({"name": "kustomization/webapp/0c9c2e41",
            "state": "failed", "description": "health check failed"});
        assert_eq!(body(&made[1]), status);
    }

    #[test]
    fn only_the_newest_entry_of_name_and_commit_decides() {
        let wanted = CommitStatus {
            commit: "abc".into(),
            context: "n".into(),
            state: CommitState::Success,
            description: "fine".into(),
            target_url: None,
        };
        let entry = |id, sha: &str, name: &str, status: &str| Entry {
            id,
            sha: sha.into(),
            name: name.into(),
            status: status.into(),
            description: Some("fine".into()),
            target_url: None,
        };
        assert_eq!(
            remote_state_of(
                &[
                    entry(1, "abc", "n", "success"),
                    entry(2, "abc", "n", "failed")
                ],
                &wanted
            ),
            remote_state(false)
        );
        assert_eq!(
            remote_state_of(
                &[
                    entry(3, "abc", "n", "success"),
                    entry(2, "abc", "n", "failed")
                ],
                &wanted
            ),
            remote_state(true)
        );
        assert_eq!(
            remote_state_of(
                &[
                    entry(1, "def", "n", "success"),
                    entry(2, "abc", "m", "success")
                ],
                &wanted
            ),
            RemoteState::Unknown
        );
    }

    #[tokio::test]
    async fn a_list_with_too_many_pages_gives_an_unknown_state() {
        let commit = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        let list = format!("/api/v4/projects/acme%2Fdeploy/repository/commits/{commit}/statuses");
        let name = "kustomization%2Fwebapp%2F0c9c2e41";
        let entry = serde_json::json!([{"id": 1, "sha": commit,
            "name": "kustomization/webapp/0c9c2e41", "status": "success",
            "description": "reconciliation succeeded"}]);
        let entry: &'static str = entry.to_string().leak();
        let page = |number: u32| {
            let and_page = and_page(number);
            let call: &'static str = format!("GET {list}?name={name}{and_page}").leak();
            (call, 200, "<http://elsewhere/>; rel=\"next\"", entry)
        };
        let pages: Vec<_> = (1..=MOST_PAGES).map(page).collect();
        let (gitlab, calls) = scripted(&TYPE, pages.leak()).await;
        let desired = gitlab
            .desire(&Sample::info().message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(gitlab.read(&desired).await, Ok(RemoteState::Unknown));
        assert_eq!(calls.lock().len(), MOST_PAGES as usize);
    }

    #[test]
    fn a_token_is_required() {
        let provider = sample::provider("gitlab", |provider| {
            provider.address = "https://gitlab.com/acme/deploy".into()
        });
        assert!(build_error(&TYPE, &provider).contains("key token"));
    }
}
