//! An evaluator: a thread with a child process that it starts when it is needed.
//!
//! The kernel kills a child when the thread that started it ends, so that thread stays.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tidings_core::runtime::metrics::labels::KilledBy;
use tokio::sync::oneshot;

use super::Owner;
use super::child_process::{Asked, ChildProcess, Death, Executable, death};
use super::evaluators::count;
use super::fair_permits::Permit;
use super::refusals::Refusals;
use super::wire::Answer;
use crate::accountability::Hold;

/// The longest that an evaluation may take. It matters only on a machine that has no CPU time for
/// the child.
const DEADLINE: Duration = Duration::from_secs(10);
/// A child that was not used for this long is ended.
const UNUSED_FOR: Duration = Duration::from_secs(60);
/// A request that ended this many children in unclear ways is the cause.
const MOST_CHILDREN: usize = 2;

/// Why an expression was not evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEvaluated {
    /// It needs too much of this.
    TooCostly(Cost),
    /// Its variables have this many bytes.
    TooLarge(usize),
    /// All children are in use.
    Busy,
    /// Too many other expressions of the namespace are too costly.
    Suspected,
    /// It did not end in time.
    Late,
    /// No child can be started.
    NoChild(String),
}

/// What a costly expression used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// CPU time.
    CpuTime,
    /// Memory.
    Memory,
}

/// A request to an evaluator.
pub struct Job {
    /// The request as the child reads it.
    pub request: Vec<u8>,
    /// The Provider that it is for.
    pub owner: Owner,
    /// Receives the result.
    pub reply: oneshot::Sender<Result<Answer, NotEvaluated>>,
    /// The expression.
    pub source: String,
    /// Given back when the child is ready for the next request, even if nobody waits any more.
    pub permit: Permit<Sender<Self>>,
    /// Holds the delivery accountable meanwhile.
    pub hold: Option<Hold>,
}

/// Starts the thread of an evaluator.
///
/// # Errors
/// No thread can be started.
pub fn start(executable: Executable, refusals: Arc<Refusals>) -> io::Result<Sender<Job>> {
    let (sender, jobs) = channel();
    thread::Builder::new()
        .name("evaluator".to_owned())
        .spawn(move || work(&executable, &refusals, &jobs))?;
    Ok(sender)
}

fn work(executable: &Executable, refusals: &Refusals, jobs: &Receiver<Job>) {
    let mut child = None;
    loop {
        let job = match jobs.recv_timeout(UNUSED_FOR) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                child = None;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let result = evaluate(executable, &mut child, &job);
        // Refused before the permit is given back: the next request may be for the same expression.
        if let Err(NotEvaluated::TooCostly(cost)) = result {
            refusals.insert(&job.owner, &job.source, cost);
        }
        drop((job.permit, job.hold));
        let _ = job.reply.send(result);
    }
}

/// Asks the child, or another one if its death says nothing about the expression.
fn evaluate(
    executable: &Executable,
    warm: &mut Option<ChildProcess>,
    job: &Job,
) -> Result<Answer, NotEvaluated> {
    let no_child = |error: io::Error| NotEvaluated::NoChild(error.to_string());
    let mut unclear = 0;
    loop {
        let mut child = match warm.take() {
            Some(child) => child,
            None => ChildProcess::start(executable).map_err(no_child)?,
        };
        let is_fresh = child.is_fresh();
        let died = match child.ask(&job.request, DEADLINE).map_err(no_child)? {
            Asked::Answered(answer) => {
                *warm = Some(child);
                return Ok(answer);
            }
            Asked::Late => {
                count(&job.owner, KilledBy::Deadline);
                return Err(NotEvaluated::Late);
            }
            Asked::Died(status) => (death(status, is_fresh), status),
        };
        let (cause, cost) = match died {
            (Death::CpuTime, _) => (KilledBy::CpuTime, Some(Cost::CpuTime)),
            (Death::Memory, _) => (KilledBy::Memory, Some(Cost::Memory)),
            (Death::NotStarted, status) => return Err(NotEvaluated::NoChild(status.to_string())),
            (Death::Unclear, _) => {
                // A child that has waited may have died before this request.
                unclear += usize::from(is_fresh);
                let is_cause = unclear >= MOST_CHILDREN;
                (KilledBy::Unclear, is_cause.then_some(Cost::Memory))
            }
        };
        count(&job.owner, cause);
        if let Some(cost) = cost {
            return Err(NotEvaluated::TooCostly(cost));
        }
    }
}
