//! `commitStatusExpr`: a CEL expression over `event`, `alert` and `provider` that gives the commit
//! status id.
//!
//! The CEL library limits neither time nor memory, and recurses without a limit. So expressions are
//! evaluated in child processes, which limit themselves and which the kernel ends.
//!
//! ```text
//!  Expression ─► Evaluators: permits, refusals ─► Evaluator (thread) ─► child: evaluate
//! ```

pub mod check;
pub mod check_budget;
pub mod child;
mod child_process;
mod evaluate;
mod evaluator;
mod evaluators;
mod fair_permits;
mod language;
mod refusals;
#[cfg(test)]
mod tests;
mod wire;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidings_core::{Failure, Reason};

pub use child_process::Executable;
pub use evaluator::{Cost, NotEvaluated};
pub use evaluators::{count_in, start_children_with};
use refusals::{MOST_REFUSED, REFUSED_FOR};
use wire::{Answer, LONGEST_REQUEST, Request};

/// The longest text that an expression reads, in bytes. The rest is cut.
const LONGEST_TEXT: usize = 64 << 10;

/// An expression of a Provider.
pub struct Expression {
    owner: Owner,
    source: String,
}

/// The Provider that an expression belongs to. Its namespace is the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why an expression gives no commit status id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// What it depends on.
    pub cause: Cause,
    /// What is wrong, for people.
    pub sentence: String,
}

/// What an error of an expression depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The text alone: a syntax error, or a name that does not exist.
    Text,
    /// A map lacks this key.
    Key(String),
    /// The types of the values.
    Types,
    /// The values, such as those of metadata.
    Values,
}

/// The variables of an expression.
#[derive(Clone, Serialize, Deserialize)]
pub struct Variables {
    /// The event, with the combined metadata.
    pub event: Json,
    /// The Alert's manifest.
    pub alert: Json,
    /// The Provider's manifest.
    pub provider: Json,
}

// === impl Expression ===

impl Expression {
    /// An expression that is compiled when it is evaluated. A compile error is reported with every
    /// event, as in Flux.
    pub fn new(owner: Owner, source: &str) -> Self {
        Self {
            owner,
            source: source.to_owned(),
        }
    }

    /// The text that the expression gives.
    ///
    /// # Errors
    /// Permanent: it does not compile, fails, gives no text, or is too costly. Transient: it could
    /// not be evaluated.
    pub async fn evaluate(&self, variables: Variables) -> Result<String, Failure> {
        match self.check(variables).await {
            Ok(answer) => answer.map_err(|it| wrong(&it.sentence)),
            Err(why) => Err(why.into()),
        }
    }

    /// What the expression gives, or its problem and what that depends on.
    ///
    /// # Errors
    /// It was not evaluated.
    pub async fn check(&self, variables: Variables) -> Result<Answer, NotEvaluated> {
        let request = Request {
            source: self.source.clone(),
            variables: variables.cut(),
        };
        evaluators::evaluate(&self.owner, &request).await
    }
}

fn wrong(sentence: &str) -> Failure {
    Failure::permanent(
        Reason::Misconfigured,
        format!("spec.commitStatusExpr is invalid: {sentence}"),
    )
}

// === impl Variables ===

impl Variables {
    /// The same with the longest texts cut.
    fn cut(mut self) -> Self {
        for variable in [&mut self.event, &mut self.alert, &mut self.provider] {
            cut_texts(variable);
        }
        self
    }
}

fn cut_texts(json: &mut Json) {
    match json {
        Json::String(text) => text.truncate(text.floor_char_boundary(LONGEST_TEXT)),
        Json::Array(items) => items.iter_mut().for_each(cut_texts),
        Json::Object(fields) => fields.values_mut().for_each(cut_texts),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

// === impl NotEvaluated ===

impl NotEvaluated {
    /// Why it was not evaluated, for people.
    pub fn sentence(&self) -> String {
        let minutes = REFUSED_FOR.as_secs() / 60;
        let too_costly = |what: String| {
            format!(
                "expression too costly: spec.commitStatusExpr needs more than {what}; simplify it. \
                 Until it changes, it is refused for {minutes} minutes"
            )
        };
        let failed = |why: &str| format!("spec.commitStatusExpr could not be evaluated: {why}");
        match self {
            Self::TooCostly(Cost::Memory) => {
                too_costly(format!("{} MiB of memory", child::MOST_MEMORY >> 20))
            }
            Self::TooCostly(Cost::CpuTime) => {
                too_costly(format!("{} s of CPU time", child::CPU_SECONDS))
            }
            Self::TooLarge(bytes) => failed(&format!(
                "event, Alert and Provider have {bytes} bytes as JSON; at most {LONGEST_REQUEST} \
                 are accepted"
            )),
            Self::Busy => failed("other expressions use all children"),
            Self::Suspected => failed(&format!(
                "{MOST_REFUSED} other expressions of the namespace were too costly in the last \
                 {minutes} minutes; simplify them"
            )),
            Self::Late => failed("the child did not answer in time; is the machine overloaded?"),
            Self::NoChild(why) => failed(&format!("no child process: {why}")),
        }
    }
}

impl From<NotEvaluated> for Failure {
    fn from(why: NotEvaluated) -> Self {
        let sentence = why.sentence();
        match why {
            NotEvaluated::TooCostly(_) | NotEvaluated::TooLarge(_) => {
                Self::permanent(Reason::Misconfigured, sentence)
            }
            NotEvaluated::Busy
            | NotEvaluated::Suspected
            | NotEvaluated::Late
            | NotEvaluated::NoChild(_) => Self::transient(Reason::Timeout, sentence),
        }
    }
}

// === impl Wrong ===

impl Wrong {
    fn new(cause: Cause, sentence: impl Into<String>) -> Self {
        Self {
            cause,
            sentence: sentence.into(),
        }
    }
}
