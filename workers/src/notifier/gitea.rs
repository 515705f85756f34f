//! `gitea`: commit statuses on Gitea and Forgejo. As in Flux, it is the only forge where progress
//! is sent by default, as pending.
//!
//! API: <https://docs.gitea.com/api/>, `repoCreateStatus`

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
use super::forge::gitea_api::{Gitea, NEEDS};
use super::forge::null_or;
use super::forge::page::{Entries, MOST_PAGES, has_next};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};

/// Gitea stores longer ids, but they would be others than at GitHub, whose API this is.
const LONGEST_ID: usize = 255;
const LONGEST_DESCRIPTION: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "gitea",
    family: Family::CommitStatus,
    summary: "commit statuses on Gitea and Forgejo",
    needs: NEEDS,
    cut_at: "id 255, description 255",
    sent_twice: "the same",
    build,
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://github.com/go-gitea/gitea/blob/main/models/git/commit_status.go",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/context", LONGEST_ID),
            SizeLimit::characters("/description", LONGEST_DESCRIPTION),
        ],
    },
    ..ProviderType::DEFAULT
};

struct GiteaStatus {
    gitea: Gitea,
    statuses: StatusReader,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let statuses = StatusReader::new(provider, Progressing::Pending);
    Ok(Notifier::State(Box::new(GiteaStatus {
        gitea: Gitea::new(provider, http)?,
        statuses,
    })))
}

#[async_trait]
impl KeepState for GiteaStatus {
    async fn prepare(&self, message: &Message<'_>) -> Result<(), Failure> {
        // An invalid expression fails before any call.
        self.statuses.context(message).await?;
        self.gitea.check_version().await
    }

    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let status = self.statuses.status(message).await?;
        Ok(status.map(|status| {
            let status = status.fitted(LONGEST_ID, LONGEST_DESCRIPTION);
            desired(
                &self.gitea.key_prefix(),
                &status.commit,
                &status.context,
                &status,
            )
        }))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let wanted: CommitStatus = desired.decode()?;
        for page in 1..=MOST_PAGES {
            let path = format!("commits/{}/statuses?limit=50&page={page}", wanted.commit);
            let response = self
                .gitea
                .send(self.gitea.request(Method::GET, &path)?)
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
        let post = Post {
            state: state_name(status.state),
            target_url: status.target_url.as_deref().unwrap_or_default(),
            description: &status.description,
            context: &status.context,
        };
        let request = self
            .gitea
            .request(Method::POST, &format!("statuses/{}", status.commit))?
            .json(&post);
        Ok(Sent::accepted(self.gitea.send(request).await?.status))
    }
}

/// The state of the first entry with the context on a page. The list has the newest first.
fn remote_state_of(entries: &[Entry], wanted: &CommitStatus) -> Option<RemoteState> {
    let newest = entries
        .iter()
        .find(|entry| entry.context == wanted.context)?;
    let is_same =
        newest.status == state_name(wanted.state) && newest.description == wanted.description;
    Some(remote_state(
        is_same && wanted.links_to(Some(&newest.target_url)),
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
    target_url: &'a str,
    description: &'a str,
    context: &'a str,
}

#[derive(Deserialize, Default)]
struct Entry {
    context: String,
    status: String,
    #[serde(default, deserialize_with = "null_or")]
    description: String,
    #[serde(default, deserialize_with = "null_or")]
    target_url: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, build_error, requests, secret};

    fn provider(pairs: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("gitea", |provider| {
            provider.address = "https://gitea.example.com:3000/acme/deploy.git".into();
            provider.secret = secret(pairs);
        })
    }

    #[tokio::test]
    async fn the_version_is_read_first_and_progress_is_pending() {
        let mut sample = Sample::info();
        sample.event.reason = "Progressing".into();
        let made = requests(&TYPE, &provider(&[("token", "gta")]), &sample).await;
        let paths: Vec<String> = made
            .iter()
            .map(|request| request.url[url::Position::BeforePath..].to_owned())
            .collect();
        let commit = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        assert_eq!(
            paths,
            [
                "/api/v1/version".to_owned(),
                format!("/api/v1/repos/acme/deploy/commits/{commit}/statuses?limit=50&page=1"),
                format!("/api/v1/repos/acme/deploy/statuses/{commit}"),
            ]
        );
        let context = "kustomization/webapp/0c9c2e41";
        let status = serde_json::json!({"state": "pending", "target_url": "",
            "description": "progressing", "context": context});
        assert_eq!(body(&made[2]), status);
        assert_eq!(made[2].headers["authorization"], "token gta");
    }

    #[tokio::test]
    async fn the_version_is_read_once() {
        let http = Http::dry_run();
        let Notifier::State(notifier) =
            build(&provider(&[("token", "gta")]), http.clone()).unwrap()
        else {
            unreachable!()
        };
        for _ in 0..2 {
            notifier.prepare(&Sample::info().message()).await.unwrap();
        }
        assert_eq!(http.recorded().len(), 1);
    }

    #[test]
    fn a_token_is_required() {
        assert!(build_error(&TYPE, &provider(&[])).contains("key token"));
    }
}
