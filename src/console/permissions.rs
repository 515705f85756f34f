//! What users may do in namespaces, as the Kubernetes API says.
//!
//! # Guarantees
//! - Without an answer nothing is allowed: the caller gets an error.
//! - Questions at a time, the time of each, and what is kept have bounds.

mod access_review;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::log_pace::LogPace;
use tidings_ingest::authentication::User;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub use access_review::KubernetesAuthorizer;

/// The time limit of a question.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most questions at a time, and of one request.
const MOST_QUESTIONS: usize = 32;
const MOST_OF_REQUEST: usize = 8;
/// How long an answer is valid. So long a user keeps what was taken away.
const VALID_FOR: Duration = Duration::from_secs(30);
/// The most users, and the most answers of each, that are kept. Events may name any namespace, so
/// that a sender could cause as many questions: what is beyond them is not allowed.
const MOST_USERS: usize = 64;
const MOST_ANSWERS: usize = 2_000;
/// A name that means all namespaces.
const ALL: &str = "";
/// The longest name of a namespace.
const MAX_NAME_BYTES: usize = 63;
/// Both kinds of rules decide: what is stored about one names the other.
const RESOURCES: [&str; 2] = ["alerts", "providers"];

/// What a user wants to do with the Alerts and Providers of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// See them, and what became of their events.
    Get,
    /// Act on them.
    Update,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Update => "update",
        }
    }
}

/// Knows what users may do.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether a user may do something with a resource in a namespace; the empty name is all
    /// namespaces. An error says why there is no answer.
    fn may(
        &self,
        user: &User,
        verb: &'static str,
        resource: &'static str,
        namespace: &str,
    ) -> impl Future<Output = Result<bool, String>> + Send;
}

/// The Kubernetes API did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// Asks an authorizer, and keeps its answers for a short time.
pub struct Permissions<A> {
    authorizer: A,
    known: Mutex<HashMap<Arc<User>, Answers>>,
    turns: Semaphore,
    pace: Mutex<LogPace>,
}

/// The answers about a user.
struct Answers {
    first: Instant,
    allowed: HashMap<(Verb, String), bool>,
}

impl<A: Authorizer> Permissions<A> {
    pub fn new(authorizer: A) -> Self {
        Self {
            authorizer,
            known: Mutex::default(),
            turns: Semaphore::new(MOST_QUESTIONS),
            pace: Mutex::default(),
        }
    }

    /// Whether a user may do something in all namespaces.
    ///
    /// # Errors
    /// There is no answer in time.
    pub async fn may_in_all(&self, user: &Arc<User>, verb: Verb) -> Result<bool, NoAnswer> {
        self.ask(user, verb, ALL).await
    }

    /// The namespaces, of those given, in which a user may do something.
    ///
    /// # Errors
    /// There is no answer in time.
    pub async fn among(
        &self,
        user: &Arc<User>,
        verb: Verb,
        namespaces: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, NoAnswer> {
        if self.may_in_all(user, verb).await? {
            return Ok(namespaces);
        }
        // Others are those of a member of the fleet, of objects without a namespace, or invalid.
        let local = namespaces.into_iter().filter(|name| is_namespace(name));
        let asked = stream::iter(local).map(async |name| {
            let is_allowed = self.ask(user, verb, &name).await?;
            Ok(is_allowed.then_some(name))
        });
        let asked = asked.buffer_unordered(MOST_OF_REQUEST);
        asked
            .try_filter_map(async |name| Ok(name))
            .try_collect()
            .await
    }

    async fn ask(&self, user: &Arc<User>, verb: Verb, name: &str) -> Result<bool, NoAnswer> {
        if let Some(is_allowed) = self.get(user, verb, name) {
            return Ok(is_allowed);
        }
        if name != ALL && self.has_asked_enough(user) {
            return Ok(false);
        }
        let asking = async {
            let _turn = self
                .turns
                .acquire()
                .await
                .map_err(|error| error.to_string())?;
            for resource in RESOURCES {
                let asked = self.authorizer.may(user, verb.as_str(), resource, name);
                if !asked.await? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let asked = timeout(TIMEOUT, asking).await;
        let asked = asked.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(format!(
                "the Kubernetes API did not answer within {seconds} s"
            ))
        });
        self.note(asked.as_ref().err());
        let is_allowed = asked.map_err(|_| NoAnswer)?;
        self.put(user, verb, name, is_allowed, Instant::now());
        Ok(is_allowed)
    }

    fn get(&self, user: &Arc<User>, verb: Verb, name: &str) -> Option<bool> {
        let known = self.known.lock();
        let answers = known.get(user)?;
        let is_valid = answers.first.elapsed() < VALID_FOR;
        let answer = answers.allowed.get(&(verb, name.to_owned()));
        answer.copied().filter(|_| is_valid)
    }

    fn has_asked_enough(&self, user: &Arc<User>) -> bool {
        let known = self.known.lock();
        known.get(user).is_some_and(|answers| {
            answers.first.elapsed() < VALID_FOR && answers.allowed.len() >= MOST_ANSWERS
        })
    }

    fn put(&self, user: &Arc<User>, verb: Verb, name: &str, is_allowed: bool, now: Instant) {
        let mut known = self.known.lock();
        known.retain(|_, answers| now.saturating_duration_since(answers.first) < VALID_FOR);
        if known.len() >= MOST_USERS && !known.contains_key(user) {
            let oldest = known.iter().min_by_key(|(_, answers)| answers.first);
            let oldest = oldest.map(|(user, _)| user.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let answers = known.entry(user.clone()).or_insert_with(|| Answers {
            first: now,
            allowed: HashMap::new(),
        });
        if name == ALL || answers.allowed.len() < MOST_ANSWERS {
            answers.allowed.insert((verb, name.to_owned()), is_allowed);
        }
    }

    /// Notes whether the authorizer answered.
    fn note(&self, failure: Option<&String>) {
        let Some(error) = failure else {
            self.pace.lock().reset();
            return;
        };
        if self.pace.lock().is_due(error, std::time::Instant::now()) {
            tracing::warn!(
                code = codes::ACCESS_REVIEW_FAILED,
                error,
                "permissions are not reviewed"
            );
        }
    }
}

/// Whether a namespace can have this name.
fn is_namespace(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests;
