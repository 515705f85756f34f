//! `bitbucket`: build statuses of commits on Bitbucket Cloud. The host of the address does not
//! matter.
//!
//! API: <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/>. A post with
//! the key of an existing status replaces it.

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::Mentions;
use super::contract::{DesiredState, KeepState, Notifier, ProviderType, RemoteState, Sent};
use super::forge::commit_status::{
    CommitState, CommitStatus, Progressing, StatusReader, desired, remote_state,
};
use super::forge::{api_url, null_or};
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::repository::{Repository, repository};
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, rate,
};
use crate::notifier::contract::need::Demand::{Either, Required};
use crate::notifier::contract::need::Need;
use crate::text::cut_id;

const LONGEST_TEXT: usize = 255;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "bitbucket",
    family: Family::CommitStatus,
    summary: "build statuses on Bitbucket Cloud",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://bitbucket.org/OWNER/NAME",
            "https://bitbucket.org/acme/deploy",
        ),
        Need::api_address("in place of https://api.bitbucket.org, such as a gateway"),
        Need::key(
            "token",
            Either,
            "USER:APP-PASSWORD",
            "your-user:your-app-password",
        ),
        Need::key("username", Either, "in place of token, with password", ""),
        Need::key("password", Either, "with username", ""),
    ],
    cut_at: "name 255",
    sent_twice: "the same",
    build,
    // The limit of requests for repository data.
    rate_limits: RateLimits {
        scope: LimitScope::Account,
        rates: &[rate(1000, 3600)],
        source: "https://support.atlassian.com/bitbucket-cloud/docs/api-request-limits/",
    },
    confirmation: Confirmation::Json(&[("key", Is::Present), ("state", Is::Present)]),
    mentions: Mentions::COMMIT_STATUS,
    size_limits: SizeLimits {
        source: "https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/key", 40),
            SizeLimit::id("/name", LONGEST_TEXT),
            SizeLimit::characters("/description", LONGEST_TEXT),
        ],
    },
    ..ProviderType::DEFAULT
};

/// The link of a status without a target URL, since the API requires one.
const LINK: &str = "https://bitbucket.org";

struct BitbucketStatus {
    http: Http,
    /// The API's URL of the repository.
    api: String,
    repository: Repository,
    username: String,
    password: String,
    statuses: StatusReader,
}

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(flatten)]
    status: CommitStatus,
    name: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let repository = repository(provider)?;
    repository.owner_and_name()?;
    let root = match &provider.api_address {
        Some(_) => repository.root(),
        None => "https://api.bitbucket.org",
    };
    let api = format!("{root}/2.0/repositories/{}", repository.path());
    let (username, password) = match provider.secret.token() {
        Some(token) => token
            .split_once(':')
            .ok_or("the key token in the Secret must have the form USER:PASSWORD")?,
        None => provider.secret.basic().ok_or(
            "no token: set the key token in the Secret of spec.secretRef to USER:PASSWORD",
        )?,
    };
    let (username, password) = (username.to_owned(), password.to_owned());
    let statuses = StatusReader::new(provider, Progressing::Skipped);
    Ok(Notifier::State(Box::new(BitbucketStatus {
        http,
        api,
        repository,
        username,
        password,
        statuses,
    })))
}

#[async_trait]
impl KeepState for BitbucketStatus {
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure> {
        let Some(status) = self.statuses.status(message).await? else {
            return Ok(None);
        };
        let name = self.statuses.visible_name(message, &status.context);
        let state = State {
            status: status.fitted(usize::MAX, LONGEST_TEXT),
            name: cut_id(&name, LONGEST_TEXT),
        };
        let key_prefix = format!("bitbucket {}", self.repository.id);
        Ok(Some(desired(
            &key_prefix,
            &state.status.commit,
            &state.status.context,
            &state,
        )))
    }

    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure> {
        let State { status, .. } = desired.decode()?;
        let request = self.request(
            Method::GET,
            &status.commit,
            &format!("/{}", status_key(&status.context)),
        )?;
        let response = self.http.send(request).await?;
        if response.status == 404 || response.dry_run {
            return Ok(RemoteState::Unknown);
        }
        classify(&response)?;
        let entry: Entry = response.parsed()?;
        let is_same =
            entry.state == state_name(status.state) && entry.description == status.description;
        Ok(remote_state(is_same && status.links_to(Some(&entry.url))))
    }

    async fn write(&self, desired: &DesiredState, _handle: Option<&str>) -> Result<Sent, Failure> {
        let State { status, name } = desired.decode()?;
        let key = status_key(&status.context);
        let url = status.target_url.as_deref().unwrap_or(LINK);
        let post = Post {
            key: &key,
            state: state_name(status.state),
            name: &name,
            description: &status.description,
            url,
        };
        let request = self.request(Method::POST, &status.commit, "")?.json(&post);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

impl BitbucketStatus {
    fn request(&self, method: Method, commit: &str, rest: &str) -> Result<Request, Failure> {
        let url = api_url(&format!(
            "{}/commit/{commit}/statuses/build{rest}",
            self.api
        ))?;
        Ok(Request::new(method, url).basic(&self.username, &self.password))
    }
}

/// The key of a status. Bitbucket allows up to 40 characters.
pub(super) fn status_key(context: &str) -> String {
    hex::encode(Sha1::digest(context))
}

/// The state's name in both APIs of Bitbucket.
pub(super) fn state_name(state: CommitState) -> &'static str {
    match state {
        CommitState::Success => "SUCCESSFUL",
        CommitState::Failure => "FAILED",
        CommitState::Pending => "INPROGRESS",
    }
}

#[derive(Serialize)]
struct Post<'a> {
    key: &'a str,
    state: &'a str,
    name: &'a str,
    description: &'a str,
    url: &'a str,
}

#[derive(Deserialize, Default)]
struct Entry {
    state: String,
    #[serde(default, deserialize_with = "null_or")]
    description: String,
    #[serde(default, deserialize_with = "null_or")]
    url: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, build_error, requests, secret};

    fn provider(pairs: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("bitbucket", |provider| {
            provider.address = "git@bitbucket.org:acme/deploy.git".into();
            provider.secret = secret(pairs);
        })
    }

    #[tokio::test]
    async fn the_status_of_the_key_is_read_before_one_is_posted() {
        let made = requests(
            &TYPE,
            &provider(&[("token", "user:app-pw")]),
            &Sample::info(),
        )
        .await;
        let build = "https://api.bitbucket.org/2.0/repositories/acme/deploy/commit/8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291/statuses/build";
        let key = "4abc3ba6f171924ecece234c03192982da12888b";
        assert_eq!(made[0].url.as_str(), format!("{build}/{key}"));
        assert_eq!(made[1].url.as_str(), build);
        let status = serde_json::json!({
            "key": key, "state": "SUCCESSFUL", "name": "kustomization/webapp",
            "description": "reconciliation succeeded", "url": "https://bitbucket.org",
        });
        assert_eq!(body(&made[1]), status);
        assert_eq!(made[1].headers["authorization"], "Basic dXNlcjphcHAtcHc=");
    }

    #[tokio::test]
    async fn what_distinguishes_statuses_is_visible_in_the_name() {
        let name = async |cluster: &str, qualified: bool, expression: Option<&str>| {
            let mut provider = provider(&[("token", "user:app-pw")]);
            provider.commit_status.qualified_id = qualified;
            provider.commit_status_expr = expression.map(str::to_owned);
            let mut sample = Sample::info();
            sample.event.cluster = cluster.into();
            let made = requests(&TYPE, &provider, &sample).await;
            body(&made[1])["name"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            name("eu-1", true, None).await,
            "eu-1/apps/kustomization/webapp"
        );
        assert_ne!(
            name("eu-1", true, None).await,
            name("eu-2", true, None).await
        );
        let [alpha, beta] = [Some("'alpha'"), Some("'beta'")];
        assert_eq!(name("", false, alpha).await, "kustomization/webapp (alpha)");
        assert_ne!(name("", false, alpha).await, name("", false, beta).await);
        let as_in_flux = Some("'Kustomization/webapp/' + event.severity");
        assert_eq!(name("", false, as_in_flux).await, "kustomization/webapp");
    }

    #[tokio::test]
    async fn another_api_can_be_named() {
        for api in ["http://gateway.local/bb", "http://gateway.local/bb/2.0/"] {
            let mut provider = provider(&[("token", "user:app-pw")]);
            provider.api_address = api.parse().ok();
            let made = requests(&TYPE, &provider, &Sample::info()).await;
            let url = made[1].url.as_str();
            assert!(
                url.starts_with("http://gateway.local/bb/2.0/repositories/acme/deploy/commit/"),
                "{url}"
            );
        }
    }

    #[test]
    fn credentials_are_user_and_password() {
        assert!(build_error(&TYPE, &provider(&[])).contains("USER:PASSWORD"));
        assert!(build_error(&TYPE, &provider(&[("token", "nocolon")])).contains("USER:PASSWORD"));
        assert_eq!(build_error(&TYPE, &provider(&[("token", "u:p:q")])), "");
        assert_eq!(
            build_error(&TYPE, &provider(&[("username", "u"), ("password", "p")])),
            ""
        );
    }
}
