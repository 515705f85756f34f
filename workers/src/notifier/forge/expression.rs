//! `commitStatusExpr`: a CEL expression over `event`, `alert` and `provider` that gives the commit
//! status id.
//!
//! The CEL library recurses without a limit, so a long expression would crash the process. The
//! length is therefore limited, and expressions run in a thread with a large stack and a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value};
use serde_json::Value as Json;
use tidings_core::{Failure, Reason};

use super::language::LANGUAGE;
use crate::message::blocking::run_blocking;
use crate::text::cut_chars;

/// The longest expression in bytes. Its deepest tree fits into [`STACK`].
const LONGEST: usize = 4096;
/// Address space in bytes; the system provides memory as it is used. Frames of debug builds are
/// many times larger.
const STACK: usize = if cfg!(debug_assertions) {
    1 << 30
} else {
    64 << 20
};
/// The longest that an evaluation may take. Usual expressions take microseconds.
const DEADLINE: Duration = Duration::from_secs(1);

/// An expression. A compile error is reported with every event, as in Flux.
pub struct Expression(Arc<Inner>);

struct Inner {
    source: String,
    program: OnceLock<Result<Program, String>>,
    /// Evaluations that still run after their deadline. A thread can't be stopped, so no new
    /// evaluation starts before they end.
    late: AtomicUsize,
}

/// Why an expression gives no commit status id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What it depends on.
    pub cause: Cause,
    /// What is wrong, for people.
    pub sentence: String,
}

/// What an error of an expression depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The text alone: a syntax error, or a name that does not exist.
    Text,
    /// A map lacks this key.
    Key(String),
    /// The types of the values.
    Types,
    /// The values, such as those of metadata, or the time that the evaluation takes.
    Values,
}

/// The variables of an expression.
#[derive(Clone)]
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
    /// An expression that is compiled when it is first evaluated.
    pub fn new(source: &str) -> Self {
        Self(Arc::new(Inner {
            source: source.to_owned(),
            program: OnceLock::new(),
            late: AtomicUsize::new(0),
        }))
    }

    /// The text that the expression gives.
    ///
    /// # Errors
    /// Permanent: it does not compile, fails, or gives no text. Transient: it takes too long.
    pub fn evaluate(&self, variables: Variables) -> Result<String, Failure> {
        let evaluated = self.run(move |inner| inner.evaluate(variables))?;
        evaluated.map_err(|it| wrong(&it.sentence))
    }

    /// Compiles the expression.
    ///
    /// # Errors
    /// It is not valid.
    pub fn compile(&self) -> Result<(), Wrong> {
        let compiled = self.run(|inner| inner.program().map(|_| String::new()));
        compiled.unwrap_or(Ok(String::new())).map(drop)
    }

    /// Evaluates the expression for sample values.
    ///
    /// # Errors
    /// What is wrong, and what that depends on.
    pub fn check(&self, variables: Variables) -> Result<(), Wrong> {
        let evaluated = self
            .run(move |inner| inner.evaluate(variables))
            .unwrap_or_else(|failure| Err(Wrong::new(Cause::Values, failure.detail)));
        evaluated.map(drop)
    }

    fn run(
        &self,
        work: impl FnOnce(&Inner) -> Result<String, Wrong> + Send + 'static,
    ) -> Result<Result<String, Wrong>, Failure> {
        if self.0.late.load(Ordering::Relaxed) > 0 {
            return Err(late(
                "an earlier evaluation still runs; simplify the expression",
            ));
        }
        let (sender, receiver) = mpsc::sync_channel(0);
        let inner = Arc::clone(&self.0);
        let work = move || {
            if sender.send(work(&inner)).is_err() {
                inner.late.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK);
        thread
            .spawn(work)
            .map_err(|error| late(&format!("no thread can be started: {error}")))?;
        match run_blocking(|| receiver.recv_timeout(DEADLINE)) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Disconnected) => Ok(Err(Wrong::new(
                Cause::Values,
                "the CEL library fails; simplify the expression",
            ))),
            Err(RecvTimeoutError::Timeout) => {
                // Counted before the receiver is dropped, because the thread then knows that it is
                // late.
                self.0.late.fetch_add(1, Ordering::Relaxed);
                Err(late(&format!(
                    "it takes longer than {DEADLINE:?}; simplify the expression"
                )))
            }
        }
    }
}

fn wrong(sentence: &str) -> Failure {
    Failure::permanent(
        Reason::Misconfigured,
        format!("spec.commitStatusExpr is invalid: {sentence}"),
    )
}

fn late(sentence: &str) -> Failure {
    Failure::transient(
        Reason::Timeout,
        format!("spec.commitStatusExpr could not be evaluated: {sentence}"),
    )
}

// === impl Wrong ===

impl Wrong {
    fn new(cause: Cause, sentence: impl Into<String>) -> Self {
        Self {
            cause,
            sentence: sentence.into(),
        }
    }

    fn execution(error: &ExecutionError) -> Self {
        let cause = match error {
            ExecutionError::UndeclaredReference(_) => Cause::Text,
            ExecutionError::NoSuchKey(key) => Cause::Key(key.as_str().to_owned()),
            ExecutionError::FunctionError { .. }
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::DuplicateKey(_)
            | ExecutionError::InternalError(_) => Cause::Values,
            _ => Cause::Types,
        };
        Self::new(
            cause,
            format!("it fails for this event: {}", one_line(error)),
        )
    }
}

// === impl Inner ===

impl Inner {
    fn evaluate(&self, variables: Variables) -> Result<String, Wrong> {
        execute(self.program()?, variables)
    }

    fn program(&self) -> Result<&Program, Wrong> {
        let program = self.program.get_or_init(|| compile(&self.source));
        let wrong = |sentence: &String| Wrong::new(Cause::Text, sentence.clone());
        program.as_ref().map_err(wrong)
    }
}

fn compile(source: &str) -> Result<Program, String> {
    if source.len() > LONGEST {
        return Err(format!(
            "it has {} bytes; shorten it to {LONGEST}",
            source.len()
        ));
    }
    LANGUAGE
        .compile(source)
        .map_err(|errors| format!("it is not valid CEL: {}", one_line(&errors)))
}

fn execute(program: &Program, variables: Variables) -> Result<String, Wrong> {
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    context.add_variable_from_value("event", value(variables.event));
    context.add_variable_from_value("alert", value(variables.alert));
    context.add_variable_from_value("provider", value(variables.provider));
    match program
        .execute(&context)
        .map_err(|error| Wrong::execution(&error))?
    {
        Value::String(text) if text.is_empty() => Err(Wrong::new(
            Cause::Values,
            "it gives an empty string; a commit status needs an id",
        )),
        Value::String(text) => Ok(text.as_str().to_owned()),
        other => Err(Wrong::new(
            Cause::Types,
            format!("it gives {}; convert it with string(…)", other.type_of()),
        )),
    }
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let words: Vec<String> = error
        .to_string()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    cut_chars(&words.join(" "), 300)
}

/// JSON as CEL sees it in Flux: whole numbers are `int`. The library would convert them to `uint`,
/// and `n + 1` would fail.
fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text)),
        Json::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        Json::Object(fields) => {
            let map = fields
                .into_iter()
                .map(|(key, field)| (Key::String(Arc::new(key)), value(field)))
                .collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::FailureKind;

    use super::*;

    fn evaluate(source: &str) -> Result<String, String> {
        let event = serde_json::json!({"reason": "Ready", "metadata": {"env": "prod",
            "revision": "main@sha1:abc"}});
        let alert = serde_json::json!({"metadata": {"generation": 3},
            "spec": {"eventSources": [{"kind": "A"}, {"kind": "B"}]}});
        let provider = serde_json::json!({"metadata": {"name": "gh", "uid": "0c9c2e41-d2f9"}});
        let variables = Variables {
            event,
            alert,
            provider,
        };
        Expression::new(source)
            .evaluate(variables)
            .map_err(|failure| failure.detail)
    }

    #[test]
    fn expressions_read_event_alert_and_provider() {
        for (source, text) in [
            ("event.reason", "Ready"),
            (
                "event.metadata['env'] + '/' + provider.metadata.uid.split('-')[0]",
                "prod/0c9c2e41",
            ),
            (
                "(provider.metadata.name + event.reason).lowerAscii()",
                "ghready",
            ),
            (
                "has(event.metadata.missing) ? event.metadata.missing : 'none'",
                "none",
            ),
            ("event.metadata.?missing.orValue('fallback')", "fallback"),
            ("alert.spec.eventSources.map(s, s.kind).join(',')", "A,B"),
            ("string(alert.metadata.generation + 1)", "4"),
        ] {
            assert_eq!(evaluate(source).as_deref(), Ok(text), "{source}");
        }
    }

    #[test]
    fn an_expression_that_gives_no_text_is_rejected_with_the_reason() {
        for (source, sentence) in [
            ("42", "convert it with string(…)"),
            (
                "''",
                "it gives an empty string; a commit status needs an id",
            ),
            ("event.metadata.missing", "missing"),
            ("unknown.metadata", "unknown"),
            ("event.", "not valid CEL"),
            ("'a' + 1", "fails for this event"),
            (&"a".repeat(LONGEST + 1), "shorten it to 4096"),
        ] {
            let error = evaluate(source).unwrap_err();
            assert!(error.contains(sentence), "{source}: {error}");
        }
    }

    #[test]
    fn the_longest_expressions_do_not_crash_the_process() {
        let terms = "'a'+".repeat(1023) + "'a'";
        assert_eq!(evaluate(&terms).map(|text| text.len()), Ok(1024));
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("!", ""),
            ("-", ""),
            ("{1:", "}"),
            ("true?'a':", ""),
            ("'a'.trim().", ""),
            ("a.", ""),
        ] {
            let deep = LONGEST / (open.len() + close.len()) - 2;
            let _ = evaluate(&format!("{}'a'{}", open.repeat(deep), close.repeat(deep)));
        }
    }

    #[test]
    fn a_compiled_expression_or_its_error_is_cached() {
        for (source, can_be_compiled) in [("event.reason", true), ("event.", false)] {
            let expression = Expression::new(source);
            assert!(
                expression.0.program.get().is_none(),
                "not before it is needed"
            );
            let event = serde_json::json!({"reason": "Ready"});
            let _ = expression.evaluate(Variables {
                event,
                alert: Json::Null,
                provider: Json::Null,
            });
            assert_eq!(
                expression.0.program.get().map(Result::is_ok),
                Some(can_be_compiled),
                "{source}"
            );
        }
    }

    #[test]
    fn a_late_expression_is_not_started_again_until_it_ends() {
        let digits = "[1,2,3,4,5,6,7,8,9,0]";
        let expression = Expression::new(&format!(
            "{digits}.all(a, {digits}.all(b, {digits}.all(c, {digits}.all(d, {digits}.all(e, \
             {digits}.all(f, {digits}.all(g, a + b + c + d + e + f + g < 1000))))))) ? 'y' : 'n'"
        ));
        let variables = || Variables {
            event: Json::Null,
            alert: Json::Null,
            provider: Json::Null,
        };
        let failure = expression.evaluate(variables()).unwrap_err();
        assert!(failure.detail.contains("longer than 1s"), "{failure}");
        assert_eq!(failure.kind, FailureKind::Transient { retry_after: None });
        assert!(
            expression
                .evaluate(variables())
                .unwrap_err()
                .detail
                .contains("still runs")
        );
    }
}
