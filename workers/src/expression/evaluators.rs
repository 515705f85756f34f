//! The evaluators of this process. All Providers share them.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::KilledBy;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Owner;
use super::child_process::Executable;
use super::evaluator::{self, Job, NotEvaluated};
use super::fair_permits::FairPermits;
use super::refusals::Refusals;
use super::wire::{Answer, LONGEST_REQUEST, Request};
use crate::accountability::hold;

/// The number of evaluators: one serves other tenants while an expression takes long.
const COUNT: usize = 2;
/// The longest wait for an evaluator.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

static EXECUTABLE: OnceLock<Executable> = OnceLock::new();
static METRICS: OnceLock<Metrics> = OnceLock::new();
static EVALUATORS: LazyLock<Result<Evaluators, String>> =
    LazyLock::new(|| executable().and_then(|it| Evaluators::start(it, COUNT)));

/// Evaluators that share permits and refusals.
pub struct Evaluators {
    permits: FairPermits<Sender<Job>>,
    refusals: Arc<Refusals>,
}

/// Sets how children are started: by default they cannot be. Only the first call has an effect.
pub fn start_children_with(executable: Executable) {
    let _ = EXECUTABLE.set(executable);
}

/// Counts killed children in the metrics of this process. Only the first call has an effect.
pub fn count_in(metrics: &Metrics) {
    let _ = METRICS.set(metrics.clone());
}

/// Counts and logs a killed child.
pub fn count(owner: &Owner, cause: KilledBy) {
    if let Some(metrics) = METRICS.get() {
        let killed = &metrics.expression_children_killed_total;
        killed.get_or_create(&cause).inc();
    }
    tracing::warn!(
        code = codes::EXPRESSION_CHILD_KILLED,
        provider = format!("{}/{}", owner.namespace, owner.name),
        cause = cause.as_str(),
        "a child that evaluated an expression was killed"
    );
}

fn executable() -> Result<Executable, String> {
    #[cfg(test)]
    start_children_with(super::tests::executable());
    let executable = EXECUTABLE.get().cloned();
    executable.ok_or_else(|| "this program has not set its executable".to_owned())
}

/// Evaluates an expression.
///
/// # Errors
/// It was not evaluated.
pub async fn evaluate(owner: &Owner, request: &Request) -> Result<Answer, NotEvaluated> {
    let evaluators = EVALUATORS.as_ref();
    let no_child = |error: &String| NotEvaluated::NoChild(error.clone());
    evaluators.map_err(no_child)?.evaluate(owner, request).await
}

impl Evaluators {
    /// Starts this many evaluators. They start their children later.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(executable: Executable, count: usize) -> Result<Self, String> {
        let refusals = Arc::<Refusals>::default();
        let started = (0..count).map(|_| evaluator::start(executable.clone(), refusals.clone()));
        let started: io::Result<Vec<_>> = started.collect();
        Ok(Self {
            permits: FairPermits::new(started.map_err(|error| error.to_string())?),
            refusals,
        })
    }

    /// Evaluates an expression as soon as a child is free.
    ///
    /// # Errors
    /// It was not evaluated.
    pub async fn evaluate(&self, owner: &Owner, request: &Request) -> Result<Answer, NotEvaluated> {
        self.refusals.check(owner, &request.source)?;
        let permit = timeout(LONGEST_WAIT, self.permits.acquire(&owner.namespace)).await;
        let permit = permit.ok().flatten().ok_or(NotEvaluated::Busy)?;
        // It may be refused since the wait began.
        self.refusals.check(owner, &request.source)?;
        // Encoded only now, so that waiting needs no memory.
        let source = request.source.clone();
        let request = serde_json::to_vec(request).unwrap_or_default();
        if request.len() > LONGEST_REQUEST {
            return Err(NotEvaluated::TooLarge(request.len()));
        }
        let (reply, result) = oneshot::channel();
        let ended = || NotEvaluated::NoChild("the evaluator has ended".to_owned());
        let evaluator = permit.thing().cloned().ok_or_else(ended)?;
        let job = Job {
            request,
            owner: owner.clone(),
            reply,
            source,
            permit,
            hold: hold(),
        };
        evaluator.send(job).map_err(|_| ended())?;
        result.await.unwrap_or_else(|_| Err(ended()))
    }
}
