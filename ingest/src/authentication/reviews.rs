//! Asks a reviewer about tokens: within bounds of number and time, and not twice in short time.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::health::Check;
use tidings_core::runtime::log_pace::LogPace;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Refusal;
use super::review_cache::{Known, ReviewCache};
use super::tokens::hash;
use super::user::User;
use super::users::Users;

/// The time limit of a review. With the wait for its turn it is less than the 5 s after which
/// senders give up.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// The most reviews at a time.
const MOST_REVIEWS: usize = 16;
/// The most users that are kept with their groups.
const MOST_WITH_GROUPS: usize = 256;
/// The pause between two probes while the reviewer does not answer.
const PROBE_PAUSE: Duration = Duration::from_secs(2);
/// A token that nobody has. Any answer about it shows that the reviewer works.
const PROBE: &str = "tidings-probe";

/// Knows the users of tokens.
pub trait Reviewer: Send + Sync + 'static {
    /// Whether a text can be a token that is worth asking about. Decided without asking.
    fn can_know(&self, _token: &str) -> bool {
        true
    }

    /// Asks about a token. An error says why there is no answer, and never quotes the token.
    fn review(&self, token: &str) -> impl Future<Output = Result<Review, String>> + Send;
}

/// What a reviewer says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// It is valid for an audience of ours, and belongs to this user.
    Valid(User),
    /// It is not valid.
    Invalid,
}

/// A reviewer, and what it said.
pub struct Reviews<R> {
    reviewer: R,
    users: Users,
    known: Mutex<ReviewCache>,
    turns: Semaphore,
    check: Check,
    pace: Mutex<LogPace>,
    keeps_groups: bool,
}

impl<R: Reviewer> Reviews<R> {
    /// Accepts tokens of `users` that the reviewer knows. `check` shows whether it answers.
    pub fn new(reviewer: R, users: Users, check: Check) -> Self {
        Self {
            reviewer,
            users,
            known: Mutex::default(),
            turns: Semaphore::new(MOST_REVIEWS),
            check,
            pace: Mutex::default(),
            keeps_groups: false,
        }
    }

    /// Also keeps the groups of users, which decide what they may do. Then fewer users are kept.
    #[must_use]
    pub fn with_groups(self) -> Self {
        Self {
            keeps_groups: true,
            known: Mutex::new(ReviewCache::new(MOST_WITH_GROUPS)),
            ..self
        }
    }

    /// Asks until the reviewer answers for the first time, so that the role is ready only then.
    pub async fn probe(&self, stop: CancellationToken) {
        loop {
            let asked = timeout(TIMEOUT, self.reviewer.review(PROBE)).await;
            let asked = asked.unwrap_or_else(|_| Err(no_answer()));
            self.note(asked.as_ref().err());
            if asked.is_ok() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PROBE_PAUSE) => {}
            }
        }
    }

    /// The user of a token.
    ///
    /// # Errors
    /// The token is not valid, its user may not send, too many others are being reviewed, or the
    /// reviewer does not answer in time.
    pub async fn user_of(&self, token: &str) -> Known {
        let hash = hash(token);
        if let Some(known) = self.get(&hash) {
            return known;
        }
        if !self.reviewer.can_know(token) {
            return Err(Refusal::Unknown);
        }
        // Many tokens do not show that the reviewer fails, so this is a cause of its own.
        let Ok(Ok(_turn)) = timeout(TURN_TIMEOUT, self.turns.acquire()).await else {
            return Err(Refusal::Busy);
        };
        // Another request may have asked about the same token meanwhile.
        if let Some(known) = self.get(&hash) {
            return known;
        }
        let review = timeout(TIMEOUT, self.reviewer.review(token)).await;
        let review = review.unwrap_or_else(|_| Err(no_answer()));
        self.note(review.as_ref().err());
        let known = self.decide(review.map_err(|_| Refusal::Unavailable)?);
        self.known.lock().put(hash, known.clone(), Instant::now());
        known
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Known> {
        self.known.lock().get(hash, Instant::now())
    }

    fn decide(&self, review: Review) -> Known {
        match review {
            Review::Invalid => Err(Refusal::Unknown),
            Review::Valid(user) if !self.users.include(&user.name) => {
                Err(Refusal::NotAllowed(user.shown()))
            }
            Review::Valid(user) if !self.keeps_groups => Ok(Arc::new(user.name_only())),
            // Without some of its groups it could be another user to the API.
            Review::Valid(user) if !user.is_small() => Err(Refusal::NotAllowed(user.shown())),
            Review::Valid(user) => Ok(Arc::new(user)),
        }
    }

    /// Notes whether the reviewer answered.
    fn note(&self, failure: Option<&String>) {
        let Some(error) = failure else {
            self.check.succeed();
            if self.pace.lock().reset() {
                tracing::info!(
                    code = codes::TOKEN_REVIEW_RECOVERED,
                    "tokens are reviewed again"
                );
            }
            return;
        };
        self.check.fail(error.clone());
        if self.pace.lock().is_due(error, Instant::now()) {
            tracing::warn!(
                code = codes::TOKEN_REVIEW_FAILED,
                error,
                "tokens are not reviewed"
            );
        }
    }
}

fn no_answer() -> String {
    format!(
        "the Kubernetes API did not answer within {} s",
        TIMEOUT.as_secs()
    )
}
