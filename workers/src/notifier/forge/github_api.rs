//! GitHub's REST API, as the types `github`, `githubdispatch` and `githubpullrequestcomment` use
//! it.
//!
//! API: <https://docs.github.com/en/rest>

use reqwest::Method;
use serde::Deserialize;
use tidings_core::Failure;
use tidings_rules::ResolvedProvider;
use url::Url;

use super::github_app::{self, GithubApp};
use super::github_http::{ACCEPT, check, request};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::repository::{Repository, forge_of, parse, repository};
use crate::notifier::contract::limits::{LimitScope, RateLimits, rate};
use crate::notifier::contract::need::Demand::{Either, Optional, Required};
use crate::notifier::contract::need::Need;

/// The limits of created content, for each user or App.
pub const RATE_LIMITS: RateLimits = RateLimits {
    scope: LimitScope::Account,
    rates: &[rate(80, 60), rate(500, 3600)],
    source: "https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api",
};

/// What the types of GitHub read.
pub const NEEDS: &[Need] = &[
    Need::field(
        "address",
        Required,
        "https://HOST/OWNER/NAME",
        "https://github.com/acme/deploy",
    ),
    Need::api_address("the API's URL, if it does not follow from the address"),
    Need::key(
        "token",
        Either,
        "an access token, in place of a GitHub App's keys",
        "your-token",
    ),
    Need::key("password", Either, "another name of the key token", ""),
    Need::key(
        "githubAppID",
        Either,
        "the App's id, with the two below",
        "",
    ),
    Need::key(
        "githubAppInstallationID",
        Either,
        "its installation, or githubAppInstallationOwner",
        "",
    ),
    Need::key(
        "githubAppInstallationOwner",
        Either,
        "the organization it is installed in",
        "",
    ),
    Need::key("githubAppPrivateKey", Either, "its key, as PEM", ""),
    Need::key(
        "githubAppBaseURL",
        Optional,
        "the API, unless it is that of the repository",
        "",
    ),
];

/// The API for one repository, with one Provider's credentials.
pub struct GitHub {
    http: Http,
    base: Url,
    repository: Repository,
    credentials: Credentials,
}

enum Credentials {
    Token(String),
    App(Box<GithubApp>),
}

#[derive(Default, Deserialize)]
struct User {
    login: String,
}

// === impl GitHub ===

impl GitHub {
    /// Validates the address and the credentials.
    ///
    /// # Errors
    /// The address or a credential is missing or invalid; the error names it.
    pub fn new(provider: &ResolvedProvider, http: Http) -> Result<Self, Invalid> {
        let repository = repository(provider)?;
        repository.owner_and_name()?;
        let base = base_of(provider, &repository);
        let credentials = match provider
            .secret
            .token()
            .or_else(|| provider.secret.text("password"))
        {
            Some(token) => Credentials::Token(token.to_owned()),
            None if github_app::is_given(&provider.secret) => Credentials::App(Box::new(
                GithubApp::new(&provider.secret, &base, http.clone())?,
            )),
            None => {
                return Err(Invalid::from(
                    "no credentials: set the key token, or the keys of a GitHub App (githubAppID \
                     and others), in the Secret of spec.secretRef",
                ));
            }
        };
        Ok(Self {
            http,
            base,
            repository,
            credentials,
        })
    }

    /// The names of API and repository, with which keys start.
    pub fn key_prefix(&self) -> String {
        format!(
            "github {}/{}",
            self.base.as_str().trim_end_matches('/'),
            self.repository.id
        )
    }

    /// A request below `/repos/OWNER/NAME/`, with credentials.
    ///
    /// # Errors
    /// GitHub gives the App no token.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
    ) -> Result<Request, Failure> {
        self.authorized(
            method,
            &format!("repos/{}/{path}", self.repository.path()),
            accept,
        )
        .await
    }

    /// Sends a request once and checks the response.
    ///
    /// # Errors
    /// As [`check`].
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let response = self.http.send(request).await?;
        if let (401, Credentials::App(app)) = (response.status, &self.credentials) {
            app.forget_token().await;
        }
        check(&response)?;
        Ok(response)
    }

    /// The login under which comments are written; empty in a dry run.
    ///
    /// # Errors
    /// GitHub does not report the login.
    pub async fn login(&self) -> Result<String, Failure> {
        if let Credentials::App(app) = &self.credentials {
            return app.login().await;
        }
        let response = self
            .send(self.authorized(Method::GET, "user", ACCEPT).await?)
            .await?;
        response.parsed().map(|user: User| user.login)
    }

    async fn authorized(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
    ) -> Result<Request, Failure> {
        let token = match &self.credentials {
            Credentials::Token(token) => token.clone(),
            Credentials::App(app) => app.token().await?,
        };
        Ok(request(&self.base, method, path, accept)?.bearer(&token))
    }
}

/// The API's root: `spec.apiAddress`, or what follows from the address.
fn base_of(provider: &ResolvedProvider, repository: &Repository) -> Url {
    let Some(api) = &provider.api_address else {
        return api_of(&repository.root);
    };
    let path = api.path().trim_end_matches('/');
    let has_path_of_api = forge_of(api).path().trim_end_matches('/') != path;
    // Who names the forge, by the host of the repository or a path above it, means its API.
    let is_forge = parse(&provider.address).is_some_and(|address| {
        let is_above = path.is_empty() || address.id != repository.id;
        address.root.host_str() == api.host_str() && is_above && !has_path_of_api
    });
    if is_forge { api_of(api) } else { api.clone() }
}

/// The API of the forge at this root: of github.com, of Enterprise Cloud with data residency
/// (`SUBDOMAIN.ghe.com`), or of an Enterprise Server.
///
/// Documented in "Getting started with the REST API" and "Feature overview for GitHub Enterprise
/// Cloud with data residency" on docs.github.com.
pub fn api_of(root: &Url) -> Url {
    let host = root.host_str().unwrap_or_default();
    // ssh.github.com serves SSH over port 443.
    let host = host.strip_prefix("ssh.").unwrap_or(host);
    let fixed = match host.strip_suffix(".ghe.com") {
        _ if matches!(host, "github.com" | "www.github.com") => "https://api.github.com".to_owned(),
        Some(subdomain) if subdomain.starts_with("api.") => format!("https://{host}"),
        Some(_) => format!("https://api.{host}"),
        None => {
            let mut base = root.clone();
            base.set_path(&format!("{}/api/v3", root.path().trim_end_matches('/')));
            return base;
        }
    };
    Url::parse(&fixed).expect("a host with another label is a URL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{provider, secret};

    fn base(address: &str, api: &str) -> String {
        let provider = provider("github", |provider| {
            provider.address = address.into();
            provider.api_address = api.parse().ok();
            provider.secret = secret(&[("token", "t")]);
        });
        let github = GitHub::new(&provider, Http::dry_run()).unwrap();
        assert_eq!(github.repository.id, "acme/deploy");
        github.base.into()
    }

    #[test]
    fn the_api_follows_from_the_address() {
        for (address, expected) in [
            ("https://github.com/acme/deploy", "https://api.github.com/"),
            (
                "https://www.github.com/acme/deploy",
                "https://api.github.com/",
            ),
            (
                "ssh://git@ssh.github.com:443/acme/deploy.git",
                "https://api.github.com/",
            ),
            (
                "https://acme.ghe.com/acme/deploy",
                "https://api.acme.ghe.com/",
            ),
            (
                "https://ACME.ghe.com/acme/deploy.git",
                "https://api.acme.ghe.com/",
            ),
            (
                "git@acme.ghe.com:acme/deploy.git",
                "https://api.acme.ghe.com/",
            ),
            (
                "ssh://git@ssh.acme.ghe.com:443/acme/deploy",
                "https://api.acme.ghe.com/",
            ),
            (
                "https://api.acme.ghe.com/acme/deploy",
                "https://api.acme.ghe.com/",
            ),
            (
                "https://acme.notghe.com/acme/deploy",
                "https://acme.notghe.com/api/v3",
            ),
            (
                "http://ghe.example.com:8080/acme/deploy",
                "http://ghe.example.com:8080/api/v3",
            ),
        ] {
            assert_eq!(base(address, ""), expected, "{address}");
        }
    }

    #[test]
    fn an_api_address_takes_precedence() {
        for (address, api, expected) in [
            (
                "https://ghe.example.com/acme/deploy",
                "https://api.example.com",
                "https://api.example.com/",
            ),
            (
                "https://ghe.example.com/acme/deploy",
                "https://ghe.example.com",
                "https://ghe.example.com/api/v3",
            ),
            (
                "git@acme.ghe.com:acme/deploy",
                "https://acme.ghe.com/",
                "https://api.acme.ghe.com/",
            ),
            (
                "https://host/github/acme/deploy",
                "https://host/github/api/v3",
                "https://host/github/api/v3",
            ),
            (
                "https://host/github/acme/deploy",
                "https://host/github/",
                "https://host/github/api/v3",
            ),
            (
                "https://host/acme/deploy",
                "https://host/api-of-github",
                "https://host/api-of-github",
            ),
        ] {
            assert_eq!(base(address, api), expected, "{address}");
        }
    }
}
