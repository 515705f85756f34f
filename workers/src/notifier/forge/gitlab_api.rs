//! GitLab's REST API, as the types `gitlab` and `gitlabmergerequestcomment` use it.
//!
//! API: <https://docs.gitlab.com/api/rest/>

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Deserialize;
use tidings_core::{Failure, FailureKind, Reason};
use tidings_rules::ResolvedProvider;

use super::api_url;
use crate::http::classify::classify;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::repository::{Repository, repository};
use crate::notifier::contract::need::Demand::{Either, Required};
use crate::notifier::contract::need::Need;

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// What the types of GitLab read.
pub const NEEDS: &[Need] = &[
    Need::field(
        "address",
        Required,
        "https://HOST/GROUP/…/NAME",
        "https://gitlab.com/acme/deploy",
    ),
    Need::api_address("https://HOST/PATH, if GitLab is not at the root of the address's host"),
    Need::key(
        "token",
        Either,
        "an access token with the scope api",
        "your-token",
    ),
    Need::key("password", Either, "another name of the key token", ""),
];

/// The API for one project, with one Provider's token.
pub struct GitLab {
    http: Http,
    repository: Repository,
    token: String,
}

#[derive(Default, Deserialize)]
struct User {
    username: String,
}

// === impl GitLab ===

impl GitLab {
    /// Validates the address and the token.
    ///
    /// # Errors
    /// The address or a credential is missing or invalid; the error names it.
    pub fn new(provider: &ResolvedProvider, http: Http) -> Result<Self, Invalid> {
        let repository = repository(provider)?;
        if !repository.id.contains('/') {
            return Err(Invalid(format!(
                "the address must name a project as GROUP/NAME, but names {:?}; if GitLab is not \
                 at the root of its host, set spec.apiAddress",
                repository.id
            )));
        }
        let token = provider
            .secret
            .token()
            .or_else(|| provider.secret.text("password"));
        let token = token
            .ok_or("no token: set the key token in the Secret of spec.secretRef")?
            .to_owned();
        Ok(Self {
            http,
            repository,
            token,
        })
    }

    /// The names of host and project, with which keys start.
    pub fn key_prefix(&self) -> String {
        format!("gitlab {}/{}", self.repository.forge(), self.repository.id)
    }

    /// A request below `/projects/ID/`, with the token.
    ///
    /// # Errors
    /// The path does not give a valid URL.
    pub fn request(&self, method: Method, path: &str) -> Result<Request, Failure> {
        // The id is one path segment, so slashes are escaped.
        let id = self
            .repository
            .path()
            .replace('/', "%2F")
            .replace('.', "%2E");
        self.authorized(method, &format!("projects/{id}/{path}"))
    }

    /// Sends a request once and checks the response.
    ///
    /// # Errors
    /// The failure of the response.
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let response = self.http.send(request).await?;
        check(&response, Timestamp::now())?;
        Ok(response)
    }

    /// The name under which notes are written; empty in a dry run.
    ///
    /// # Errors
    /// GitLab does not report the login.
    pub async fn username(&self) -> Result<String, Failure> {
        let response = self.send(self.authorized(Method::GET, "user")?).await?;
        response.parsed().map(|user: User| user.username)
    }

    fn authorized(&self, method: Method, path: &str) -> Result<Request, Failure> {
        let url = api_url(&format!("{}/api/v4/{path}", self.repository.root()))?;
        Ok(Request::new(method, url)
            .header("accept", "application/json")
            .secret_header(PRIVATE_TOKEN, &self.token))
    }
}

/// The shared table. `RateLimit-Reset` gives the wait if a 429 has no `Retry-After`.
fn check(response: &Response, now: Timestamp) -> Result<u16, Failure> {
    classify(response).map_err(|failure| {
        if failure.reason != Reason::RateLimited
            || failure.kind != (FailureKind::Transient { retry_after: None })
        {
            return failure;
        }
        let reset = response
            .header("ratelimit-reset")
            .and_then(|text| text.trim().parse::<i64>().ok());
        failure.after(reset.map(|reset| {
            Duration::from_secs(u64::try_from(reset.saturating_sub(now.as_second())).unwrap_or(0))
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{provider, response, secret, wait, with_header};

    #[test]
    fn the_id_of_a_project_is_one_segment() {
        let provider = provider("gitlab", |provider| {
            provider.address = "git@gitlab.example.com:grp/sub/my.fleet.git".into();
            provider.secret = secret(&[("token", "t")]);
        });
        let gitlab = GitLab::new(&provider, Http::dry_run()).unwrap();
        let request = gitlab.request(Method::GET, "x?a=b").unwrap();
        assert_eq!(
            request.url.as_str(),
            "https://gitlab.example.com/api/v4/projects/grp%2Fsub%2Fmy%2Efleet/x?a=b"
        );
        assert!(request.headers["private-token"].is_sensitive());
    }

    #[test]
    fn an_address_without_a_project_is_rejected() {
        let built = |address: &str| {
            let provider = provider("gitlab", |provider| {
                provider.address = address.into();
                provider.secret = secret(&[("token", "t")]);
            });
            GitLab::new(&provider, Http::dry_run()).map(drop)
        };
        for address in ["https://gitlab.com/group", "git@gitlab.com:group.git"] {
            let error = built(address).unwrap_err();
            assert!(error.0.contains("GROUP/NAME"), "{address}: {error}");
        }
        assert_eq!(built("https://gitlab.com/group/sub/name"), Ok(()));
    }

    #[test]
    fn a_gitlab_below_a_path_has_its_api_there() {
        for api in ["https://host/gitlab", "https://host/gitlab/api/v4"] {
            let provider = provider("gitlab", |provider| {
                provider.address = "https://host/gitlab/org/repo".into();
                provider.api_address = api.parse().ok();
                provider.secret = secret(&[("token", "t")]);
            });
            let gitlab = GitLab::new(&provider, Http::dry_run()).unwrap();
            let request = gitlab.request(Method::GET, "x").unwrap();
            assert_eq!(
                request.url.as_str(),
                "https://host/gitlab/api/v4/projects/org%2Frepo/x"
            );
            assert_eq!(gitlab.key_prefix(), "gitlab host/gitlab/org/repo");
        }
    }

    #[test]
    fn a_rate_limit_ends_at_its_reset() {
        let now = Timestamp::from_second(1_000).unwrap();
        let limited = with_header(response(429, ""), "ratelimit-reset", "1030");
        assert_eq!(wait(check(&limited, now)), Some(30.0));
        assert_eq!(
            wait(check(&with_header(limited, "retry-after", "5"), now)),
            Some(5.0)
        );
        assert_eq!(wait(check(&response(500, ""), now)), None);
    }
}
