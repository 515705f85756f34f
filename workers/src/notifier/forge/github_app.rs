//! Credentials of a GitHub App: a signed token for the App, with which it gets tokens for its
//! installation.
//!
//! API: <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidings_core::{Failure, Reason};
use tidings_rules::SecretData;
use tokio::sync::Mutex;
use url::Url;

use super::github_api::api_of;
use super::github_http::{ACCEPT, check, request};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::repository::escaped;

/// The App's own token is valid from a minute ago, because clocks differ.
const SKEW: Duration = Duration::from_secs(60);
/// The lifetime of the App's own token. GitHub allows ten minutes.
const LIFETIME: Duration = Duration::from_secs(300);
/// An installation's token is valid for an hour. It is not used in its last minutes.
const MARGIN: Duration = Duration::from_secs(300);

/// The App of one Provider, with its current token.
pub struct GithubApp {
    http: Http,
    base: Url,
    app_id: String,
    installation: Installation,
    key: EncodingKey,
    token: Mutex<Option<InstallationToken>>,
}

enum Installation {
    Id(String),
    Owner(String),
}

#[derive(Clone, Deserialize)]
struct InstallationToken {
    token: String,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Identified {
    id: u64,
}

#[derive(Deserialize)]
struct Named {
    slug: String,
}

/// Whether a Secret holds an App's credentials.
pub fn is_given(secret: &SecretData) -> bool {
    secret.text("githubAppID").is_some()
}

// === impl GithubApp ===

impl GithubApp {
    /// Reads the keys `githubAppID`, `githubAppPrivateKey`, and `githubAppInstallationID` or
    /// `githubAppInstallationOwner`. `githubAppBaseURL` names an Enterprise Server.
    ///
    /// # Errors
    /// A key is missing or invalid.
    pub fn new(secret: &SecretData, base: &Url, http: Http) -> Result<Self, Invalid> {
        let text = |key: &str| secret.text(key).map(str::to_owned);
        let app_id = text("githubAppID")
            .ok_or("no App id: set the key githubAppID in the Secret of spec.secretRef")?;
        let installation = match (
            text("githubAppInstallationID"),
            text("githubAppInstallationOwner"),
        ) {
            (Some(id), _) => Installation::Id(id),
            (None, Some(owner)) => Installation::Owner(owner),
            (None, None) => {
                return Err(Invalid::from(
                    "no installation: set githubAppInstallationID or githubAppInstallationOwner \
                     in the Secret of spec.secretRef",
                ));
            }
        };
        let key = secret
            .get("githubAppPrivateKey")
            .ok_or("no App key: set githubAppPrivateKey in the Secret of spec.secretRef")?;
        let key = EncodingKey::from_rsa_pem(key.bytes()).map_err(|_| {
            Invalid::from("githubAppPrivateKey in the Secret is not an RSA key in PEM format")
        })?;
        let base = match text("githubAppBaseURL") {
            Some(address) => base_of_app(&address, base)?,
            None => base.clone(),
        };
        Ok(Self {
            http,
            base,
            app_id,
            installation,
            key,
            token: Mutex::default(),
        })
    }

    /// The current token of the installation, or a new one.
    ///
    /// # Errors
    /// GitHub gives no token.
    pub async fn token(&self) -> Result<String, Failure> {
        // Locked during the call, so that parallel deliveries request only one token.
        let mut current_token = self.token.lock().await;
        if let Some(current) = current_token
            .as_ref()
            .filter(|current| is_fresh(current, Timestamp::now()))
        {
            return Ok(current.token.clone());
        }
        let new_token = self.request_token().await?;
        let token = new_token.token.clone();
        *current_token = Some(new_token);
        Ok(token)
    }

    /// Drops the current token, which GitHub no longer accepts.
    pub async fn forget_token(&self) {
        *self.token.lock().await = None;
    }

    /// The login under which the App writes comments.
    ///
    /// # Errors
    /// GitHub does not report the App.
    pub async fn login(&self) -> Result<String, Failure> {
        let named: Option<Named> = self.ask(Method::GET, "app", b"").await?;
        Ok(named
            .map(|app| format!("{}[bot]", app.slug))
            .unwrap_or_default())
    }

    async fn request_token(&self) -> Result<InstallationToken, Failure> {
        let id = match &self.installation {
            Installation::Id(id) => id.clone(),
            Installation::Owner(owner) => {
                let found: Option<Identified> = self
                    .ask(
                        Method::GET,
                        &format!("orgs/{}/installation", escaped(owner)),
                        b"",
                    )
                    .await?;
                found
                    .map(|installation| installation.id.to_string())
                    .unwrap_or_else(|| "0".to_owned())
            }
        };
        let new_token = self
            .ask(
                Method::POST,
                &format!("app/installations/{}/access_tokens", escaped(&id)),
                b"null",
            )
            .await?;
        Ok(new_token.unwrap_or(InstallationToken {
            token: "dry-run".to_owned(),
            expires_at: Timestamp::MAX,
        }))
    }

    /// Sends a request as the App; `None` in a dry run.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Result<Option<T>, Failure> {
        // Another token does no harm.
        let mut asked = request(&self.base, method, path, ACCEPT)?
            .bearer(&self.signed(Timestamp::now())?)
            .reading();
        if !body.is_empty() {
            asked = asked.body("application/json", body.to_vec());
        }
        let response = self.http.send(asked).await?;
        check(&response)?;
        if response.dry_run {
            return Ok(None);
        }
        response.parse().map(Some)
    }

    fn signed(&self, now: Timestamp) -> Result<String, Failure> {
        let claims = Claims {
            iss: &self.app_id,
            iat: (now - SKEW).as_second(),
            exp: (now + LIFETIME).as_second(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key).map_err(|_| {
            Failure::permanent(
                Reason::Misconfigured,
                "githubAppPrivateKey in the Secret can't sign; use the RSA key of the App",
            )
        })
    }
}

/// The API that `githubAppBaseURL` names. Its value may also be the forge of the repository,
/// without a path.
fn base_of_app(address: &str, base: &Url) -> Result<Url, Invalid> {
    let url = Url::parse(address.trim_end_matches('/'))
        .ok()
        .filter(|url| {
            let is_http = matches!(url.scheme(), "http" | "https");
            is_http && url.username().is_empty() && url.password().is_none()
        });
    let url = url
        .ok_or("githubAppBaseURL in the Secret is not an http or https URL without credentials")?;
    let is_forge = url.path() == "/" && api_of(&url).host() == base.host();
    Ok(if is_forge { base.clone() } else { url })
}

fn is_fresh(token: &InstallationToken, now: Timestamp) -> bool {
    token.expires_at > now + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::secret;

    #[test]
    fn the_error_names_the_missing_or_invalid_key() {
        let base = Url::parse("https://api.github.com").unwrap();
        for (pairs, named) in [
            (
                &[("githubAppID", "1")][..],
                "githubAppInstallationID or githubAppInstallationOwner",
            ),
            (
                &[("githubAppID", "1"), ("githubAppInstallationID", "2")][..],
                "set githubAppPrivateKey",
            ),
            (
                &[
                    ("githubAppID", "1"),
                    ("githubAppInstallationID", "2"),
                    ("githubAppPrivateKey", "s3cret"),
                ][..],
                "githubAppPrivateKey in the Secret",
            ),
        ] {
            let error = GithubApp::new(&secret(pairs), &base, Http::dry_run())
                .err()
                .map(|invalid| invalid.0)
                .unwrap_or_default();
            assert!(
                error.contains(named) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_base_url_of_an_app_may_be_that_of_its_forge() {
        let api = |text: &str| Url::parse(text).unwrap();
        for (address, base, expected) in [
            (
                "https://acme.ghe.com/",
                "https://api.acme.ghe.com",
                "https://api.acme.ghe.com/",
            ),
            (
                "https://ghe.local",
                "https://ghe.local/api/v3",
                "https://ghe.local/api/v3",
            ),
            (
                "https://ghe.local/api/v3/",
                "https://ghe.local/api/v3",
                "https://ghe.local/api/v3",
            ),
            (
                "https://github.com",
                "https://api.github.com",
                "https://api.github.com/",
            ),
            (
                "https://proxy.local",
                "https://api.github.com",
                "https://proxy.local/",
            ),
        ] {
            let found = base_of_app(address, &api(base)).unwrap();
            assert_eq!(found.as_str(), expected, "{address}");
        }
        for address in ["ftp://h", "https://me:s3cret@h", "h"] {
            let invalid = base_of_app(address, &api("https://h")).unwrap_err();
            assert!(!invalid.0.contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn a_token_is_used_until_it_is_rejected() {
        let current_token = InstallationToken {
            token: "ghs".into(),
            expires_at: Timestamp::MAX,
        };
        let app = GithubApp {
            http: Http::dry_run(),
            base: Url::parse("https://api.github.com").unwrap(),
            app_id: "1".into(),
            installation: Installation::Id("2".into()),
            key: EncodingKey::from_secret(b"no RSA key, so no new token can be signed"),
            token: Mutex::new(Some(current_token)),
        };
        assert_eq!(app.token().await, Ok("ghs".into()));
        app.forget_token().await;
        assert!(app.token().await.unwrap_err().detail.contains("can't sign"));
    }

    #[test]
    fn a_token_is_not_used_in_its_last_minutes() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let token = |expires_at: &str| InstallationToken {
            token: "t".into(),
            expires_at: expires_at.parse().unwrap(),
        };
        assert!(is_fresh(&token("2026-01-02T04:04:05Z"), now));
        assert!(!is_fresh(&token("2026-01-02T03:09:00Z"), now));
        assert!(!is_fresh(&token("2026-01-02T03:00:00Z"), now));
    }
}
