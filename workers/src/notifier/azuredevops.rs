//! `azuredevops`: statuses of commits on Azure DevOps Services and Server.
//!
//! API: <https://learn.microsoft.com/en-us/rest/api/azure/devops/git/statuses>. Like Microsoft's
//! clients, it first asks the organization for the route of its statuses.

use async_trait::async_trait;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use tokio::sync::OnceCell;

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use super::forge::api_url;
use super::forge::commit_status::{
    CommitState, CommitStatus, Progressing, StatusReader, desired, remote_state,
};
use super::forge::page::Entries;
use crate::http::classify::{classify, describe};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::message::repository::{Repository, escaped, repository};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;
use crate::text::cut_id;

/// Microsoft documents no lengths. This is what other forges accept.
const LONGEST_TEXT: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "azuredevops",
    family: Family::CommitStatus,
    summary: "commit statuses on Azure DevOps",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://dev.azure.com/ORGANIZATION/PROJECT/_git/NAME",
            "https://dev.azure.com/acme/fleet/_git/deploy",
        ),
        Need::api_address("the server's URL, if it is not that of the address"),
        Need::key(
            "token",
            Required,
            "a personal access token with Code (status)",
            "your-token",
        ),
    ],
    cut_at: "id 255",
    sent_twice: "the same",
    build,
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://learn.microsoft.com/en-us/rest/api/azure/devops/git/statuses/create",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/context/name", LONGEST_TEXT),
            SizeLimit::id("/context/genre", LONGEST_TEXT),
            SizeLimit::characters("/description", LONGEST_TEXT),
        ],
    },
    ..ProviderType::DEFAULT
};

/// The id of the resource "statuses" in every organization.
const STATUSES: &str = "428dd4fb-fda5-4722-af02-9313b80305da";
/// The usual route of the resource.
const USUAL_ROUTE: &str =
    "{project}/_apis/{area}/repositories/{repositoryId}/commits/{commitId}/{resource}";
const ACCEPT: &str = "application/json;api-version=6.0";

struct AzureStatus {
    http: Http,
    address: RepositoryAddress,
    token: String,
    statuses: StatusReader,
    route: OnceCell<String>,
}

/// The repository that the Provider's address names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RepositoryAddress {
    /// The URL of the organization or collection, without a trailing slash.
    root: String,
    project: String,
    repository: String,
}

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(flatten)]
    status: CommitStatus,
    /// Genre and context identify a status.
    genre: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let address = repository_address(&repository(provider)?, provider.api_address.is_some())
        .ok_or("the address must be https://dev.azure.com/ORGANIZATION/PROJECT/_git/NAME")?;
    let token = provider.secret.token().ok_or(
        "no token: set the key token in the Secret of spec.secretRef; managed identities are not \
         supported",
    )?;
    let (token, statuses) = (
        token.to_owned(),
        StatusReader::new(provider, Progressing::Skipped),
    );
    Ok(Notifier::State(Box::new(AzureStatus {
        http,
        address,
        token,
        statuses,
        route: OnceCell::new(),
    })))
}

/// Parses all forms of addresses: `dev.azure.com/ORG/PROJECT/_git/NAME`,
/// `ssh.dev.azure.com:v3/ORG/PROJECT/NAME`, and for older organizations and own servers
/// `HOST[/COLLECTION]/PROJECT/_git/NAME`.
/// `spec.apiAddress` replaces the URL of the server, or of the organization or collection.
fn repository_address(repository: &Repository, has_api: bool) -> Option<RepositoryAddress> {
    let parts: Vec<&str> = repository.id.split('/').collect();
    let mut root = repository.root();
    let (path, project, name) = match parts.as_slice() {
        ["v3", path, project, name] if repository.is_ssh => {
            if !has_api {
                root = "https://dev.azure.com";
            }
            (std::slice::from_ref(path), project, name)
        }
        [path @ .., project, "_git", name] => (path, project, name),
        _ => return None,
    };
    let path = path
        .iter()
        .map(|part| escaped(part))
        .collect::<Vec<_>>()
        .join("/");
    if root == "https://dev.azure.com" && !has_api && (path.is_empty() || path.contains('/')) {
        return None;
    }
    // An API address of the organization already has its name.
    let is_named = has_api && root.ends_with(&format!("/{path}"));
    let is_complete = path.is_empty() || is_named;
    Some(RepositoryAddress {
        root: if is_complete {
            root.to_owned()
        } else {
            format!("{root}/{path}")
        },
        project: (*project).to_owned(),
        repository: (*name).to_owned(),
    })
}

#[async_trait]
impl KeepState for AzureStatus {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let Some(status) = self.statuses.status(message).await? else {
            return Ok(None);
        };
        let summary = message
            .metadata
            .get("summary")
            .filter(|summary| !summary.is_empty());
        let genre = summary.map_or_else(
            || "fluxcd".to_owned(),
            |summary| format!("fluxcd:{summary}"),
        );
        let key_prefix = format!(
            "azuredevops {}/{}/{}",
            self.address.root, self.address.project, self.address.repository
        );
        let state = State {
            status: status.fitted(LONGEST_TEXT, LONGEST_TEXT),
            genre: cut_id(&genre, LONGEST_TEXT),
        };
        let context = format!("{} {}", state.genre, state.status.context);
        Ok(Some(desired(
            &key_prefix,
            &state.status.commit,
            &context,
            &state,
        )))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let wanted: State = desired.decode()?;
        let response = self
            .send(self.request(Method::GET, &wanted.status.commit).await?)
            .await?;
        Ok(remote_state_of(
            &response.parsed::<List<Entry>>()?.value.0,
            &wanted,
        ))
    }

    async fn write(&self, desired: &DesiredState, _handle: Option<&str>) -> Result<Sent, Failure> {
        let State { status, genre } = desired.decode()?;
        let post = Entry {
            state: state_name(status.state).to_owned(),
            description: Some(status.description),
            target_url: status.target_url,
            context: Context {
                genre: Some(genre),
                name: status.context,
            },
        };
        let body = serde_json::to_vec(&post).unwrap_or_default();
        let request = self
            .request(Method::POST, &status.commit)
            .await?
            .body("application/json;charset=utf-8", body);
        Ok(Sent::accepted(self.send(request).await?.status))
    }
}

impl AzureStatus {
    async fn request(&self, method: Method, commit: &str) -> Result<Request, Failure> {
        let route = self.route.get_or_try_init(|| self.find_route()).await?;
        let path = route
            .replace("{project}", &escaped(&self.address.project))
            .replace("{area}", "git")
            .replace("{repositoryId}", &escaped(&self.address.repository))
            .replace("{commitId}", commit)
            .replace("{resource}", "statuses");
        self.authorized(method, &path, ACCEPT)
    }

    async fn find_route(&self) -> Result<String, Failure> {
        let response = self
            .send(self.authorized(Method::OPTIONS, "_apis", "application/json")?)
            .await?;
        let resources = response.parsed::<List<Resource>>()?.value.0;
        match resources
            .into_iter()
            .find(|resource| resource.id == STATUSES)
        {
            Some(resource) => Ok(resource.route_template),
            None if response.dry_run => Ok(USUAL_ROUTE.to_owned()),
            None => Err(Failure::permanent(
                Reason::NotFound,
                format!(
                    "{} has no commit statuses; check spec.address",
                    response.host
                ),
            )),
        }
    }

    fn authorized(&self, method: Method, path: &str, accept: &str) -> Result<Request, Failure> {
        let url = api_url(&format!("{}/{path}", self.address.root))?;
        // Without the second header, Azure answers a wrong token with a login page.
        let request = Request::new(method, url)
            .header("accept", accept)
            .header("x-tfs-fedauthredirect", "Suppress");
        Ok(request.basic("", &self.token))
    }

    async fn send(&self, request: Request) -> Result<Response, Failure> {
        let response = self.http.send(request).await?;
        check(&response)?;
        Ok(response)
    }
}

/// The shared table, but 203 is the login page and means a wrong token.
fn check(response: &Response) -> Result<u16, Failure> {
    if response.status == 203 {
        return Err(Failure::transient(Reason::Unauthorized, describe(response)).with_status(203));
    }
    classify(response)
}

/// The state of the first entry with this name and genre. The list has the newest first.
fn remote_state_of(entries: &[Entry], wanted: &State) -> RemoteState {
    let is_of_this = |entry: &&Entry| {
        entry.context.name == wanted.status.context
            && entry.context.genre.as_ref() == Some(&wanted.genre)
    };
    entries
        .iter()
        .find(is_of_this)
        .map_or(RemoteState::Unknown, |newest| {
            let status = &wanted.status;
            let is_same = newest.state == state_name(status.state)
                && newest.description.as_ref() == Some(&status.description);
            remote_state(is_same && status.links_to(newest.target_url.as_deref()))
        })
}

fn state_name(state: CommitState) -> &'static str {
    match state {
        CommitState::Success => "succeeded",
        CommitState::Failure => "error",
        CommitState::Pending => "pending",
    }
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct List<T> {
    value: Entries<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            value: Entries::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    id: String,
    route_template: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    state: String,
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_url: Option<String>,
    context: Context,
}

#[derive(Serialize, Deserialize)]
struct Context {
    genre: Option<String>,
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{
        self, Sample, body, build_error, meaning, requests, response, secret,
    };

    fn provider(address: &str, pairs: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("azuredevops", |provider| {
            provider.address = address.into();
            provider.secret = secret(pairs);
        })
    }

    #[tokio::test]
    async fn route_and_list_are_read_before_a_status_is_posted() {
        let provider = provider(
            "https://dev.azure.com/org/my%20fleet/_git/deploy",
            &[("token", "pat")],
        );
        let made = requests(&TYPE, &provider, &Sample::info()).await;
        let calls: Vec<String> = made
            .iter()
            .map(|request| format!("{} {}", request.method, request.url))
            .collect();
        let statuses = "https://dev.azure.com/org/my%20fleet/_apis/git/repositories/deploy/commits/\
                        8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291/statuses";
        assert_eq!(
            calls,
            [
                "OPTIONS https://dev.azure.com/org/_apis".to_owned(),
                format!("GET {statuses}"),
                format!("POST {statuses}")
            ]
        );
        let context = serde_json::json!({"genre": "fluxcd:Production is affected",
            "name": "kustomization/webapp/0c9c2e41"});
        let status = serde_json::json!({"state": "succeeded", "description": "reconciliation \
            succeeded", "context": context});
        assert_eq!(body(&made[2]), status);
        assert_eq!(made[2].headers["authorization"], "Basic OnBhdA==");
    }

    #[test]
    fn every_form_of_an_address_names_organization_project_and_repository() {
        let token = &[("token", "t")];
        let parsed = |address: &str| {
            repository_address(&repository(&provider(address, token)).unwrap(), false)
        };
        let named = |root: &str| {
            Some(RepositoryAddress {
                root: root.into(),
                project: "fleet".into(),
                repository: "deploy".into(),
            })
        };
        for (address, root) in [
            (
                "https://user@dev.azure.com/org/fleet/_git/deploy",
                "https://dev.azure.com/org",
            ),
            (
                "git@ssh.dev.azure.com:v3/org/fleet/deploy",
                "https://dev.azure.com/org",
            ),
            (
                "https://org.visualstudio.com/fleet/_git/deploy",
                "https://org.visualstudio.com",
            ),
            (
                "https://ado.example.com/tfs/Main/fleet/_git/deploy",
                "https://ado.example.com/tfs/Main",
            ),
        ] {
            assert_eq!(parsed(address), named(root), "{address}");
        }
        for address in [
            "https://dev.azure.com/org/fleet/deploy",
            "https://dev.azure.com/fleet/_git/deploy",
            "https://h/a/b",
        ] {
            assert_eq!(parsed(address), None, "{address}");
        }
        assert!(
            build_error(
                &TYPE,
                &provider("https://dev.azure.com/org/fleet/_git/deploy", &[])
            )
            .contains("key token")
        );
    }

    #[test]
    fn an_api_address_names_the_server_or_the_collection() {
        for (address, api, root) in [
            (
                "https://ado.example.com/tfs/Main/fleet/_git/deploy",
                "http://ado.internal:8080/tfs",
                "http://ado.internal:8080/tfs/Main",
            ),
            (
                "https://ado.example.com/tfs/Main/fleet/_git/deploy",
                "https://ado.example.com/tfs/Main/",
                "https://ado.example.com/tfs/Main",
            ),
            (
                "https://dev.azure.com/org/fleet/_git/deploy",
                "https://gateway.local",
                "https://gateway.local/org",
            ),
            (
                "git@ssh.dev.azure.com:v3/org/fleet/deploy",
                "https://gateway.local/org",
                "https://gateway.local/org",
            ),
            (
                "git@ssh.dev.azure.com:v3/org/fleet/deploy",
                "https://gateway.local/azure",
                "https://gateway.local/azure/org",
            ),
        ] {
            let mut provider = provider(address, &[("token", "t")]);
            provider.api_address = api.parse().ok();
            let parsed = repository_address(&repository(&provider).unwrap(), true).unwrap();
            let named = (
                parsed.root.as_str(),
                parsed.project.as_str(),
                parsed.repository.as_str(),
            );
            assert_eq!(named, (root, "fleet", "deploy"), "{address} {api}");
        }
    }

    #[test]
    fn the_newest_entry_of_name_and_genre_decides() {
        let status = CommitStatus {
            commit: "c".into(),
            context: "n".into(),
            state: CommitState::Failure,
            description: "d".into(),
            target_url: None,
        };
        let wanted = State {
            status,
            genre: "fluxcd".into(),
        };
        let entry = |genre: Option<&str>, state: &str| Entry {
            state: state.into(),
            description: Some("d".into()),
            target_url: None,
            context: Context {
                genre: genre.map(str::to_owned),
                name: "n".into(),
            },
        };
        assert_eq!(
            remote_state_of(
                &[entry(None, "succeeded"), entry(Some("fluxcd"), "error")],
                &wanted
            ),
            remote_state(true)
        );
        assert_eq!(
            remote_state_of(&[entry(Some("fluxcd"), "succeeded")], &wanted),
            remote_state(false)
        );
        assert_eq!(
            remote_state_of(&[entry(Some("fluxcd:x"), "error")], &wanted),
            RemoteState::Unknown
        );
    }

    #[test]
    fn a_login_page_is_unauthorized() {
        assert_eq!(
            meaning(check(&response(203, "<html>"))),
            Some((Reason::Unauthorized, true))
        );
        assert_eq!(meaning(check(&response(201, "{}"))), None);
    }
}
