//! Code that the types of code forges share: commit statuses, comments, and the forges' APIs.

pub mod comment;
pub mod commit_status;
pub mod gitea_api;
pub mod github_api;
pub mod github_app;
pub mod github_http;
pub mod gitlab_api;
pub mod page;
#[cfg(test)]
pub mod service;
pub mod status_id;

use serde::{Deserialize, Deserializer};
use tidings_core::{Failure, Reason};
use url::Url;

/// Parses a URL of a forge's API.
///
/// # Errors
/// Permanent: the Provider's address does not give a valid URL.
pub fn api_url(text: &str) -> Result<Url, Failure> {
    Url::parse(text).map_err(|_| {
        Failure::permanent(
            Reason::Misconfigured,
            "the address of the repository gives no valid API URL; check spec.address",
        )
    })
}

/// Reads a text that a forge may report as null.
///
/// # Errors
/// The value is neither a text nor null.
pub fn null_or<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}
