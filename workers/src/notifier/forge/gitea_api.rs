//! Gitea's REST API (and Forgejo's), as the types `gitea` and `giteapullrequestcomment` use it.
//!
//! API: <https://docs.gitea.com/api/>

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;
use tokio::sync::OnceCell;

use super::api_url;
use crate::http::classify::classify;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::repository::{Repository, repository};
use crate::notifier::contract::need::Demand::{Either, Required};
use crate::notifier::contract::need::Need;

/// The oldest version with this API.
const OLDEST: (u64, u64) = (1, 11);

/// What the types of Gitea read.
pub const NEEDS: &[Need] = &[
    Need::field(
        "address",
        Required,
        "https://HOST/OWNER/NAME",
        "https://gitea.example.com/acme/deploy",
    ),
    Need::api_address("https://HOST/PATH, if Gitea is not at the root of the address's host"),
    Need::key("token", Either, "an access token", "your-token"),
    Need::key("password", Either, "another name of the key token", ""),
];

/// The API for one repository, with one Provider's token.
pub struct Gitea {
    http: Http,
    repository: Repository,
    token: String,
    is_version_checked: OnceCell<()>,
}

#[derive(Default, Deserialize)]
struct Version {
    version: String,
}

#[derive(Default, Deserialize)]
struct User {
    login: String,
}

// === impl Gitea ===

impl Gitea {
    /// Validates the address and the token.
    ///
    /// # Errors
    /// The address or a credential is missing or invalid; the error names it.
    pub fn new(provider: &ResolvedProvider, http: Http) -> Result<Self, Invalid> {
        let repository = repository(provider)?;
        repository.owner_and_name()?;
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
            is_version_checked: OnceCell::new(),
        })
    }

    /// The names of host and repository, with which keys start.
    pub fn key_prefix(&self) -> String {
        format!("gitea {}/{}", self.repository.forge(), self.repository.id)
    }

    /// Asks the server for its version, until a response shows that it is new enough.
    ///
    /// # Errors
    /// The server is unreachable or too old.
    pub async fn check_version(&self) -> Result<(), Failure> {
        let ask = async || {
            let response = self.send(self.authorized(Method::GET, "version")?).await?;
            if response.dry_run {
                return Ok(());
            }
            let text = response.parsed::<Version>()?.version;
            match major_and_minor(&text) {
                Some(version) if version >= OLDEST => Ok(()),
                _ => {
                    let detail = format!(
                        "{} has version {text:?}; upgrade it to Gitea 1.11 or newer",
                        response.host
                    );
                    Err(Failure::permanent(Reason::Misconfigured, detail))
                }
            }
        };
        self.is_version_checked.get_or_try_init(ask).await.copied()
    }

    /// A request below `/repos/OWNER/NAME/`, with the token.
    ///
    /// # Errors
    /// The path does not give a valid URL.
    pub fn request(&self, method: Method, path: &str) -> Result<Request, Failure> {
        self.authorized(method, &format!("repos/{}/{path}", self.repository.path()))
    }

    /// Sends a request once and checks the response.
    ///
    /// # Errors
    /// The failure of the response.
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let response = self.http.send(request).await?;
        classify(&response)?;
        Ok(response)
    }

    /// The login under which comments are written; empty in a dry run.
    ///
    /// # Errors
    /// Gitea does not report the login.
    pub async fn login(&self) -> Result<String, Failure> {
        let response = self.send(self.authorized(Method::GET, "user")?).await?;
        response.parsed().map(|user: User| user.login)
    }

    fn authorized(&self, method: Method, path: &str) -> Result<Request, Failure> {
        let url = api_url(&format!("{}/api/v1/{path}", self.repository.root()))?;
        // Gitea's own client sends this without a body, too.
        let request = Request::new(method, url).header("content-type", "application/json");
        Ok(request.secret_header(AUTHORIZATION, &format!("token {}", self.token)))
    }
}

/// The major and minor parts of a version such as `1.22.3+dev` or `v1.11.0`.
fn major_and_minor(version: &str) -> Option<(u64, u64)> {
    let number = |part: &str| {
        part.split(|character: char| !character.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    let mut parts = version.trim().trim_start_matches('v').split('.');
    Some((
        number(parts.next()?)?,
        parts.next().and_then(number).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample;

    #[test]
    fn a_gitea_below_a_path_has_its_api_there() {
        let provider = sample::provider("gitea", |provider| {
            provider.address = "https://host/git/org/repo.git".into();
            provider.secret = sample::secret(&[("token", "t")]);
        });
        let mut below = provider.clone();
        below.api_address = "https://host/git".parse().ok();
        let gitea = Gitea::new(&below, Http::dry_run()).unwrap();
        assert_eq!(
            gitea.request(Method::GET, "x").unwrap().url.as_str(),
            "https://host/git/api/v1/repos/org/repo/x"
        );
        let invalid = Gitea::new(&provider, Http::dry_run()).err().unwrap();
        assert!(invalid.0.contains("spec.apiAddress"), "{invalid}");
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (text, version) in [
            ("1.22.3", Some((1, 22))),
            ("v1.11.0+dev-1", Some((1, 11))),
            ("1.9", Some((1, 9))),
            ("9.0.3+gitea-1.22.0", Some((9, 0))),
            ("2", Some((2, 0))),
            ("development", None),
            ("", None),
        ] {
            assert_eq!(major_and_minor(text), version, "{text}");
        }
        assert!((1, 9) < OLDEST && (1, 11) >= OLDEST && (9, 0) >= OLDEST);
    }
}
