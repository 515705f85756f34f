//! `bitbucketserver`: build statuses of commits on Bitbucket Server and Data Center.
//!
//! API: <https://developer.atlassian.com/server/bitbucket/rest/>, build status. A post with the key of
//! an existing status replaces it.

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::bitbucket::{state_name, status_key};
use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use super::forge::commit_status::{CommitStatus, Progressing, StatusReader, desired, remote_state};
use super::forge::{api_url, null_or};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::repository::forge_of;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Either, Required};
use crate::notifier::contract::need::Need;
use crate::text::cut_id;

const LONGEST_TEXT: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "bitbucketserver",
    family: Family::CommitStatus,
    summary: "build statuses on Bitbucket Server and Data Center",
    needs: &[
        Need::field(
            "address",
            Required,
            "the clone URL: https://HOST/scm/PROJECT/NAME.git",
            "https://bitbucket.example.com/scm/acme/deploy.git",
        ),
        Need::api_address("the server's URL, if it is not that of the address"),
        Need::key("token", Either, "an HTTP access token", "your-token"),
        Need::key("username", Either, "in place of token, with password", ""),
        Need::key("password", Either, "with username", ""),
    ],
    cut_at: "name 255",
    sent_twice: "the same",
    build,
    confirmation: Confirmation::Empty,
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://developer.atlassian.com/server/bitbucket/rest/",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/key", 255),
            SizeLimit::id("/name", LONGEST_TEXT),
            SizeLimit::characters("/description", LONGEST_TEXT),
        ],
    },
    ..ProviderType::DEFAULT
};

struct BitbucketServerStatus {
    http: Http,
    /// The API's URL of the repository.
    api: String,
    /// The clone URL, without credentials.
    link: Url,
    credentials: Credentials,
    statuses: StatusReader,
}

enum Credentials {
    Token(String),
    Basic(String, String),
}

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(flatten)]
    status: CommitStatus,
    name: String,
    url: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let mut link = http_url(provider)?;
    // The credentials are secret, so neither the forge nor the bus gets them.
    let without_credentials = link.set_username("").and_then(|()| link.set_password(None));
    without_credentials
        .map_err(|()| Invalid::from("the address is not the clone URL of a Git repository"))?;
    let forge = provider.api_address.as_ref().map(forge_of);
    let api = api_of(&link, forge.as_ref()).ok_or(
        "the address must be the http or https clone URL, https://HOST/scm/PROJECT/NAME.git",
    )?;
    let credentials = match (provider.secret.token(), provider.secret.basic()) {
        (Some(token), _) => Credentials::Token(token.to_owned()),
        (None, Some((username, password))) => {
            Credentials::Basic(username.to_owned(), password.to_owned())
        }
        (None, None) => {
            return Err(Invalid::from(
                "no credentials: set the key token, or username and password, in the Secret of \
                 spec.secretRef",
            ));
        }
    };
    let statuses = StatusReader::new(provider, Progressing::Skipped);
    Ok(Notifier::State(Box::new(BitbucketServerStatus {
        http,
        api,
        link,
        credentials,
        statuses,
    })))
}

/// `…/rest/api/latest/projects/PROJECT/repos/NAME` of a clone URL, at another URL of the server if
/// one is given. The last `/scm/` separates the server's path from that of the repository.
fn api_of(link: &Url, forge: Option<&Url>) -> Option<String> {
    let (context, repository) = link.path().rsplit_once("/scm/")?;
    let (project, name) = repository.trim_end_matches('/').split_once('/')?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let is_one_part = |part: &str| !part.is_empty() && !part.contains('/');
    (is_one_part(project) && is_one_part(name)).then(|| {
        let own = || format!("{}{context}", &link[..url::Position::BeforePath]);
        let root = forge.map_or_else(own, |forge| forge.as_str().trim_end_matches('/').to_owned());
        format!("{root}/rest/api/latest/projects/{project}/repos/{name}")
    })
}

#[async_trait]
impl KeepState for BitbucketServerStatus {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let Some(status) = self.statuses.status(message).await? else {
            return Ok(None);
        };
        let status = status.fitted(usize::MAX, LONGEST_TEXT);
        let name = self.statuses.visible_name(message, &status.context);
        let name = format!("{name} [{}]", status.description);
        let name = cut_id(&name, LONGEST_TEXT);
        let url = status
            .target_url
            .clone()
            .unwrap_or_else(|| self.link.to_string());
        let state = State { status, name, url };
        let key_prefix = format!("bitbucketserver {}", self.api);
        Ok(Some(desired(
            &key_prefix,
            &state.status.commit,
            &state.status.context,
            &state,
        )))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let State { status, name, .. } = desired.decode()?;
        let key = status_key(&status.context);
        let request = self.request(
            Method::GET,
            &format!("commits/{}/builds?key={key}", status.commit),
        )?;
        let response = self.http.send(request).await?;
        if response.status == 404 || response.dry_run {
            return Ok(RemoteState::Unknown);
        }
        classify(&response)?;
        let entry = match response.parse()? {
            Found::Entry(entry) => entry,
            Found::Nothing(_) => return Ok(remote_state(false)),
        };
        let is_same = entry.state == state_name(status.state)
            && entry.description == status.description
            && status.links_to(Some(&entry.url));
        Ok(remote_state(
            is_same && entry.key == key && entry.name == name,
        ))
    }

    async fn write(&self, desired: &DesiredState, _handle: Option<&str>) -> Result<Sent, Failure> {
        let State { status, name, url } = desired.decode()?;
        let entry = Entry {
            key: status_key(&status.context),
            state: state_name(status.state).to_owned(),
            name,
            description: status.description,
            url,
        };
        let request = self
            .request(Method::POST, &format!("commits/{}/builds", status.commit))?
            .json(&entry);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

impl BitbucketServerStatus {
    fn request(&self, method: Method, path: &str) -> Result<Request, Failure> {
        let url = api_url(&format!("{}/{path}", self.api))?;
        // Without this header the server suspects cross-site request forgery.
        let request = Request::new(method, url)
            .header("x-atlassian-token", "no-check")
            .header("x-requested-with", "XMLHttpRequest");
        Ok(match &self.credentials {
            Credentials::Token(token) => request.bearer(token),
            Credentials::Basic(username, password) => request.basic(username, password),
        })
    }
}

/// The answer to a read. Some servers answer an empty object if there is no status.
#[derive(Deserialize)]
#[serde(untagged)]
enum Found {
    Entry(Entry),
    Nothing(Nothing),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    state: String,
    #[serde(default, deserialize_with = "null_or")]
    name: String,
    #[serde(default, deserialize_with = "null_or")]
    description: String,
    #[serde(default, deserialize_with = "null_or")]
    url: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, build_error, requests, secret};

    fn provider(address: &str, pairs: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("bitbucketserver", |provider| {
            provider.address = address.into();
            provider.secret = secret(pairs);
        })
    }

    #[tokio::test]
    async fn a_status_is_posted_without_the_credentials_of_the_address() {
        let provider = provider(
            "https://user:pass@bbs.example.com/ctx/scm/ACME/deploy.git",
            &[("username", "u"), ("password", "p")],
        );
        let made = requests(&TYPE, &provider, &Sample::error()).await;
        let builds = "https://bbs.example.com/ctx/rest/api/latest/projects/ACME/repos/deploy/commits/\
                      8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291/builds";
        let key = "4abc3ba6f171924ecece234c03192982da12888b";
        assert_eq!(made[0].url.as_str(), format!("{builds}?key={key}"));
        assert_eq!(made[1].url.as_str(), builds);
        let status = serde_json::json!({
            "key": key, "state": "FAILED", "name": "kustomization/webapp [health check failed]",
            "description": "health check failed", "url": "https://bbs.example.com/ctx/scm/ACME/deploy.git",
        });
        assert_eq!(body(&made[1]), status);
        assert_eq!(made[1].headers["authorization"], "Basic dTpw");
        assert_eq!(made[1].headers["x-atlassian-token"], "no-check");
    }

    #[tokio::test]
    async fn another_url_of_the_server_can_be_named() {
        for api in [
            "http://bbs.internal:7990/ctx",
            "http://bbs.internal:7990/ctx/rest/api/1.0",
        ] {
            let mut provider = provider(
                "https://bbs.example.com/bitbucket/scm/ACME/deploy.git",
                &[("token", "t")],
            );
            provider.api_address = api.parse().ok();
            let made = requests(&TYPE, &provider, &Sample::error()).await;
            let repository = "ctx/rest/api/latest/projects/ACME/repos/deploy/commits/";
            let url = made[1].url.as_str();
            assert!(
                url.starts_with(&format!("http://bbs.internal:7990/{repository}")),
                "{url}"
            );
            assert_eq!(
                body(&made[1])["url"],
                "https://bbs.example.com/bitbucket/scm/ACME/deploy.git"
            );
        }
    }

    #[test]
    fn address_and_credentials_are_validated() {
        let token = &[("token", "t")];
        for address in [
            "https://h/projects/ACME/repos/deploy",
            "ssh://git@h:7999/ACME/deploy.git",
            "https://h/scm/ACME",
        ] {
            assert!(
                !build_error(&TYPE, &provider(address, token)).is_empty(),
                "{address}"
            );
        }
        assert_eq!(
            build_error(
                &TYPE,
                &provider("https://h/scm/~user/scm/~user/deploy", token)
            ),
            ""
        );
        assert!(
            build_error(&TYPE, &provider("https://h/scm/ACME/deploy.git", &[]))
                .contains("key token, or username and password")
        );
    }
}
