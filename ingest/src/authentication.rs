//! Checks who sends an event: bearer tokens from a file, and tokens that the Kubernetes API knows.
//!
//! ```text
//!  headers ─► bearer ─► tokens ─► known ─► accepted
//!                         └─ not known ─► reviews ─► accepted | 401 | 403 | 503
//! ```
//!
//! # Invariants
//! - The check needs the headers only: no byte of a body is kept for a sender without a token.
//! - A token appears in no log, error or metric. Memory holds only hashes of tokens between
//!   requests.
//! - That the Kubernetes API does not answer is no reason for 401, which senders do not retry.

mod audience;
pub mod bearer;
pub mod kubernetes_api;
mod refusals;
mod review_cache;
mod reviews;
mod token_review;
mod tokens;
mod user;
mod users;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::http_server::Peer;
use tidings_core::runtime::metrics::labels::AuthenticationOutcome as Outcome;

pub use reviews::{Review, Reviewer, Reviews};
pub use token_review::KubernetesReviewer;
pub use tokens::Tokens;
pub use user::User;
pub use users::Users;

use refusals::RefusalLog;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no bearer token.
    Missing,
    /// The token is not valid.
    Unknown,
    /// The token is valid, but this user may not send events.
    NotAllowed(Arc<str>),
    /// The Kubernetes API cannot be asked.
    Unavailable,
    /// Too many other tokens are being reviewed.
    Busy,
}

/// Checks the token of each request.
pub struct Authentication<R> {
    tokens: Option<Arc<ArcSwap<Tokens>>>,
    reviews: Option<Arc<Reviews<R>>>,
    outcomes: Family<Outcome, Counter>,
    refusals: RefusalLog,
}

impl<R: Reviewer> Authentication<R> {
    /// A token must be one of `tokens`, or `reviews` must accept it.
    pub fn new(
        tokens: Option<Arc<ArcSwap<Tokens>>>,
        reviews: Option<Arc<Reviews<R>>>,
        outcomes: Family<Outcome, Counter>,
    ) -> Self {
        Self {
            tokens,
            reviews,
            outcomes,
            refusals: RefusalLog::default(),
        }
    }

    /// Checks the headers of a request. Each check is counted once.
    ///
    /// # Errors
    /// The request must be refused.
    pub async fn check(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<(), Refusal> {
        let checked = self.identify(headers).await;
        let outcome = match &checked {
            Ok((outcome, sender)) => {
                tracing::debug!(code = codes::SENDER_ACCEPTED, %sender, "sender accepted");
                *outcome
            }
            Err(refusal) => refusal.outcome(),
        };
        self.outcomes.get_or_create(&outcome).inc();
        let refusal = checked.map(drop);
        if let Err(refusal) = &refusal {
            self.log(refusal, peer);
        }
        refusal
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<(Outcome, Arc<str>), Refusal> {
        let token = bearer::token(headers)?;
        if let Some(tokens) = &self.tokens
            && let Some(name) = tokens.load().name_of(token)
        {
            return Ok((Outcome::Token, name));
        }
        match &self.reviews {
            Some(reviews) => {
                let user = reviews.user_of(token).await?;
                Ok((Outcome::Reviewed, user.shown()))
            }
            None => Err(Refusal::Unknown),
        }
    }

    fn log(&self, refusal: &Refusal, peer: Option<Peer>) {
        // Reviews log by themselves that the API does not answer.
        if *refusal == Refusal::Unavailable {
            return;
        }
        if let Some(since) = self.refusals.is_due(Instant::now()) {
            let peer = peer.map(|Peer(address)| address.to_string());
            tracing::warn!(
                code = codes::SENDER_REFUSED,
                reason = %refusal,
                peer = peer.unwrap_or_default(),
                since,
                "sender refused"
            );
        }
    }
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Missing => Outcome::Missing,
            Self::Unknown => Outcome::Unknown,
            Self::NotAllowed(_) => Outcome::NotAllowed,
            Self::Unavailable => Outcome::Unavailable,
            Self::Busy => Outcome::Busy,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("the request has no bearer token"),
            Self::Unknown => formatter.write_str("the token is not valid"),
            Self::NotAllowed(user) => write!(formatter, "user {user} may not send events"),
            Self::Unavailable => formatter.write_str("the Kubernetes API cannot be asked"),
            Self::Busy => formatter.write_str("too many tokens are being reviewed"),
        }
    }
}

#[cfg(test)]
mod tests;
