//! GitHub's REST API, as the types `github`, `githubdispatch` and `githubpullrequestcomment` use
//! it.
//!
//! API: <https://docs.github.com/en/rest>

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;
use url::Url;

use super::github_app::{self, GithubApp};
use crate::http::classify::{classify, describe, retry_after};
use crate::http::invalid::Invalid;
use crate::http::{Answer, Http, Request};
use crate::message::repository::{Repository, repository};
use crate::notifier::contract::need::Demand::{Either, Optional, Required};
use crate::notifier::contract::need::Need;

/// The form of answers that is asked for.
pub const ACCEPT: &str = "application/vnd.github.v3+json";
const VERSION: &str = "2022-11-28";
/// GitHub asks for this wait after a secondary rate limit that names none.
const SECONDARY_LIMIT: Duration = Duration::from_secs(60);

/// What the Secret of a GitHub type may hold, for people.
pub const NEEDS: &[Need] = &[
    Need::field(
        "address",
        Required,
        "https://HOST/OWNER/NAME",
        "https://github.com/acme/deploy",
    ),
    Need::key(
        "token",
        Either,
        "an access token, in place of a GitHub App's keys",
        "your-token",
    ),
    Need::key("password", Either, "the same under another name", ""),
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
        "the organisation it is installed in",
        "",
    ),
    Need::key("githubAppPrivateKey", Either, "its key, as PEM", ""),
    Need::key(
        "githubAppBaseURL",
        Optional,
        "the API of a GitHub Enterprise Server, unless it is the address's",
        "",
    ),
];

/// GitHub, for one repository and with one Provider's credentials.
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

#[derive(Deserialize)]
struct User {
    login: String,
}

// === impl GitHub ===

impl GitHub {
    /// Checks address and credentials.
    ///
    /// # Errors
    /// A sentence that names the field or key.
    pub fn new(provider: &ResolvedProvider, http: Http) -> Result<Self, Invalid> {
        let repository = repository(provider)?;
        repository.owner_and_name()?;
        let base = base_of(&repository);
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
                    "the Secret of spec.secretRef needs the key token, or those of a GitHub App (githubAppID …)",
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

    /// Names API and repository, for keys.
    pub fn place(&self) -> String {
        format!(
            "github {}/{}",
            self.base.as_str().trim_end_matches('/'),
            self.repository.id
        )
    }

    /// A request below `/repos/OWNER/NAME/`, with credentials.
    ///
    /// # Errors
    /// The App gets no token.
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

    /// Sends a request once and judges the answer.
    ///
    /// # Errors
    /// As [`judge`].
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let answer = self.http.send(request).await?;
        if let (401, Credentials::App(app)) = (answer.status, &self.credentials) {
            app.forget_token().await;
        }
        judge(&answer)?;
        Ok(answer)
    }

    /// The login under which comments are written; empty in a dry run.
    ///
    /// # Errors
    /// GitHub can't say.
    pub async fn login(&self) -> Result<String, Failure> {
        if let Credentials::App(app) = &self.credentials {
            return app.login().await;
        }
        let answer = self
            .send(self.authorized(Method::GET, "user", ACCEPT).await?)
            .await?;
        let user: Option<User> = answer.json();
        match user {
            Some(user) => Ok(user.login),
            None if answer.dry_run => Ok(String::new()),
            None => Err(Failure::transient(
                Reason::ServerError,
                format!("{} did not say whose the token is", answer.host),
            )),
        }
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

/// The API's root: that of github.com, or of an Enterprise Server.
fn base_of(repository: &Repository) -> Url {
    let mut base = repository.root.clone();
    match repository.root.host_str() {
        // The second is github.com's name for SSH over port 443.
        Some("github.com" | "ssh.github.com") => {
            base = Url::parse("https://api.github.com").expect("it is an address")
        }
        _ => base.set_path("api/v3"),
    }
    base
}

/// A request of the API, without credentials.
///
/// # Errors
/// The path does not make an address.
pub fn request(
    base: &Url,
    method: Method,
    path: &str,
    accept: &'static str,
) -> Result<Request, Failure> {
    let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
    let url = Url::parse(&address).map_err(|_| {
        Failure::permanent(
            Reason::Misconfigured,
            "the repository's address can't be used",
        )
    })?;
    Ok(Request::new(method, url)
        .header("accept", accept)
        .header("x-github-api-version", VERSION))
}

/// What GitHub's answers mean: its rate limits are 403 or 429, and a commit that is full is 422.
///
/// # Errors
/// The failure that the answer stands for.
pub fn judge(answer: &Answer) -> Result<u16, Failure> {
    if let Some(failure) = rate_limit(answer, Timestamp::now()) {
        return Err(failure.with_status(answer.status));
    }
    classify(answer).map_err(|mut failure| {
        if answer.status == 422 && answer.excerpt().contains("maximum number of statuses") {
            failure
                .detail
                .push_str(": the commit has as many statuses of this context as GitHub takes");
        }
        failure
    })
}

fn rate_limit(answer: &Answer, now: Timestamp) -> Option<Failure> {
    if !matches!(answer.status, 403 | 429) {
        return None;
    }
    let is_secondary = answer
        .excerpt()
        .to_lowercase()
        .contains("secondary rate limit");
    let until_reset = || {
        let reset = answer
            .header("x-ratelimit-reset")
            .filter(|_| answer.header("x-ratelimit-remaining") == Some("0"))?;
        let seconds = reset.trim().parse::<i64>().ok()? - now.as_second();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let wait = retry_after(answer, now)
        .or_else(until_reset)
        .or(is_secondary.then_some(SECONDARY_LIMIT))?;
    Some(Failure::transient(Reason::RateLimited, describe(answer)).after(Some(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{answer, provider, secret, verdict, wait, with_header};

    #[test]
    fn rate_limits_are_waited_for_and_other_refusals_are_not() {
        let limited = with_header(
            answer(403, "API rate limit exceeded"),
            "x-ratelimit-remaining",
            "0",
        );
        let limited = with_header(limited, "x-ratelimit-reset", "1");
        assert_eq!(verdict(judge(&limited)), Some((Reason::RateLimited, true)));
        let asked = with_header(answer(403, "slow down"), "retry-after", "7");
        assert_eq!(wait(judge(&asked)), Some(7.0));
        assert_eq!(
            wait(judge(&answer(
                403,
                "You have exceeded a secondary rate limit."
            ))),
            Some(60.0)
        );
        assert_eq!(
            verdict(judge(&answer(403, "Resource not accessible"))),
            Some((Reason::Unauthorized, true))
        );
        let full = answer(
            422,
            r#"{"message": "This SHA and context has reached the maximum number of statuses."}"#,
        );
        assert_eq!(verdict(judge(&full)), Some((Reason::Rejected, false)));
        assert!(
            judge(&full)
                .unwrap_err()
                .detail
                .contains("as many statuses")
        );
        assert_eq!(verdict(judge(&answer(201, "{}"))), None);
    }

    #[test]
    fn the_wait_for_a_new_hour_is_counted_from_now() {
        let now = Timestamp::from_second(1_000).unwrap();
        let limited = with_header(answer(403, ""), "x-ratelimit-remaining", "0");
        let limited = with_header(limited, "x-ratelimit-reset", "1090");
        assert_eq!(
            wait(rate_limit(&limited, now).map_or(Ok(()), Err)),
            Some(90.0)
        );
    }

    #[test]
    fn the_api_of_an_enterprise_server_is_on_its_own_host() {
        for (address, base) in [
            ("https://github.com/acme/deploy", "https://api.github.com/"),
            (
                "ssh://git@ssh.github.com:443/acme/deploy.git",
                "https://api.github.com/",
            ),
            (
                "http://ghe.example.com:8080/acme/deploy",
                "http://ghe.example.com:8080/api/v3",
            ),
        ] {
            let provider = provider("github", |provider| {
                provider.address = address.into();
                provider.secret = secret(&[("token", "t")]);
            });
            assert_eq!(
                GitHub::new(&provider, Http::dry_run())
                    .unwrap()
                    .base
                    .as_str(),
                base
            );
        }
    }
}
