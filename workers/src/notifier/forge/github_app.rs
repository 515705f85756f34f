//! Credentials of a GitHub App: a signed token for the App, which buys tokens for its installation.
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

use super::github_http::{ACCEPT, check, request};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::repository::escaped;

/// Clocks differ: the App's own token begins a minute ago.
const SKEW: Duration = Duration::from_secs(60);
/// It may live ten minutes.
const LIFETIME: Duration = Duration::from_secs(300);
/// An installation's token lives an hour, and is not used in its last minutes.
const MARGIN: Duration = Duration::from_secs(300);

/// The App of one Provider, with the token that it holds at present.
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
    /// Reads the keys `githubAppID`, `githubAppPrivateKey` and `githubAppInstallationID` or
    /// `githubAppInstallationOwner`, and `githubAppBaseURL` for a server of one's own.
    ///
    /// # Errors
    /// A key is missing or can't be read.
    pub fn new(secret: &SecretData, base: &Url, http: Http) -> Result<Self, Invalid> {
        let text = |key: &str| secret.text(key).map(str::to_owned);
        let app_id = text("githubAppID").ok_or("the Secret has no githubAppID")?;
        let installation = match (
            text("githubAppInstallationID"),
            text("githubAppInstallationOwner"),
        ) {
            (Some(id), _) => Installation::Id(id),
            (None, Some(owner)) => Installation::Owner(owner),
            (None, None) => {
                return Err(Invalid::from(
                    "the Secret needs githubAppInstallationID or githubAppInstallationOwner beside githubAppID",
                ));
            }
        };
        let key = secret
            .get("githubAppPrivateKey")
            .ok_or("the Secret needs githubAppPrivateKey beside githubAppID")?;
        let key = EncodingKey::from_rsa_pem(key.bytes()).map_err(|_| {
            Invalid::from("the Secret's githubAppPrivateKey is not an RSA key in PEM form")
        })?;
        let base = match text("githubAppBaseURL") {
            Some(address) => {
                let url = Url::parse(address.trim_end_matches('/'))
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https"));
                url.ok_or("the Secret's githubAppBaseURL is not an http or https address")?
            }
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

    /// A token for the installation, the one at hand or a new one.
    ///
    /// # Errors
    /// GitHub gives none.
    pub async fn token(&self) -> Result<String, Failure> {
        // RemoteState over the call, so that many deliveries at once buy one token.
        let mut held = self.token.lock().await;
        if let Some(current) = held
            .as_ref()
            .filter(|current| is_fresh(current, Timestamp::now()))
        {
            return Ok(current.token.clone());
        }
        let bought = self.buy().await?;
        let token = bought.token.clone();
        *held = Some(bought);
        Ok(token)
    }

    /// Drops the token at hand: GitHub does not take it any more.
    pub async fn forget_token(&self) {
        *self.token.lock().await = None;
    }

    /// The login under which the App writes comments.
    ///
    /// # Errors
    /// GitHub does not know the App.
    pub async fn login(&self) -> Result<String, Failure> {
        let named: Option<Named> = self.ask(Method::GET, "app", b"").await?;
        Ok(named
            .map(|app| format!("{}[bot]", app.slug))
            .unwrap_or_default())
    }

    async fn buy(&self) -> Result<InstallationToken, Failure> {
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
        let bought = self
            .ask(
                Method::POST,
                &format!("app/installations/{}/access_tokens", escaped(&id)),
                b"null",
            )
            .await?;
        Ok(bought.unwrap_or(InstallationToken {
            token: "dry-run".to_owned(),
            expires_at: Timestamp::MAX,
        }))
    }

    /// Asks as the App; nothing in a dry run.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Result<Option<T>, Failure> {
        let mut asked =
            request(&self.base, method, path, ACCEPT)?.bearer(&self.signed(Timestamp::now())?);
        if !body.is_empty() {
            asked = asked.body("application/json", body.to_vec());
        }
        let response = self.http.send(asked).await?;
        check(&response)?;
        if response.dry_run {
            return Ok(None);
        }
        let unreadable = || {
            Failure::transient(
                Reason::ServerError,
                format!("{} answered no JSON that fits /{path}", response.host),
            )
        };
        response.json().map(Some).ok_or_else(unreadable)
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
                "the Secret's githubAppPrivateKey can't sign",
            )
        })
    }
}

fn is_fresh(token: &InstallationToken, now: Timestamp) -> bool {
    token.expires_at > now + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::secret;

    #[test]
    fn every_key_that_lacks_or_can_not_be_read_is_named() {
        let base = Url::parse("https://api.github.com").unwrap();
        for (pairs, named) in [
            (
                &[("githubAppID", "1")][..],
                "githubAppInstallationID or githubAppInstallationOwner",
            ),
            (
                &[("githubAppID", "1"), ("githubAppInstallationID", "2")][..],
                "needs githubAppPrivateKey",
            ),
            (
                &[
                    ("githubAppID", "1"),
                    ("githubAppInstallationID", "2"),
                    ("githubAppPrivateKey", "s3cret"),
                ][..],
                "githubAppPrivateKey is not an RSA key",
            ),
        ] {
            let refused = GithubApp::new(&secret(pairs), &base, Http::dry_run())
                .err()
                .map(|invalid| invalid.0)
                .unwrap_or_default();
            assert!(
                refused.contains(named) && !refused.contains("s3cret"),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn a_token_is_used_until_it_is_refused() {
        let held = InstallationToken {
            token: "ghs".into(),
            expires_at: Timestamp::MAX,
        };
        let app = GithubApp {
            http: Http::dry_run(),
            base: Url::parse("https://api.github.com").unwrap(),
            app_id: "1".into(),
            installation: Installation::Id("2".into()),
            key: EncodingKey::from_secret(b"no RSA key: a new token can't be bought"),
            token: Mutex::new(Some(held)),
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
