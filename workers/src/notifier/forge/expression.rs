//! `commitStatusExpr`: a CEL expression over `event`, `alert` and `provider` that gives the commit status id.
//!
//! The library has no budget and recurses: a long expression would end the process. So the length is bounded, and all
//! work is done on a thread of its own with a large stack and a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cel::objects::{Key, Map};
use cel::{Context, Program, Value};
use serde_json::Value as Json;

use super::language::LANGUAGE;
use crate::text::cut_chars;

/// Bytes; with this many, the deepest tree fits into [`STACK`], in debug builds too.
const LONGEST: usize = 4096;
const STACK: usize = 64 << 20;
/// Sane expressions take microseconds.
const DEADLINE: Duration = Duration::from_secs(1);

/// A compiled expression, or why it can't be used; that is told with every event, as Flux does.
pub struct Expression {
    program: Result<Arc<Program>, String>,
    /// It has once run into the deadline. It is not tried again, or threads would pile up.
    is_slow: AtomicBool,
}

/// What an expression can read.
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
    /// Compiles an expression.
    pub fn new(source: &str) -> Self {
        Self { program: compile(source), is_slow: AtomicBool::new(false) }
    }

    /// The text that the expression gives.
    ///
    /// # Errors
    /// A sentence: it can't be compiled or evaluated, or gives no text or an empty one.
    pub fn evaluate(&self, variables: Variables) -> Result<String, String> {
        let program = Arc::clone(self.program.as_ref().map_err(Clone::clone)?);
        if self.is_slow.load(Ordering::Relaxed) {
            return Err(too_slow());
        }
        let result = apart(move || execute(&program, variables)).unwrap_or_else(|| {
            self.is_slow.store(true, Ordering::Relaxed);
            Err(too_slow())
        });
        result.map_err(|reason| format!("spec.commitStatusExpr can't be evaluated for this event: {reason}"))
    }
}

fn too_slow() -> String {
    format!("it took longer than {DEADLINE:?} and is not tried again until the Provider changes")
}

fn compile(source: &str) -> Result<Arc<Program>, String> {
    if source.len() > LONGEST {
        return Err(format!("spec.commitStatusExpr has {} bytes; at most {LONGEST} are taken", source.len()));
    }
    let owned = source.to_owned();
    let compiled = apart(move || LANGUAGE.compile(&owned).map(Arc::new).map_err(|errors| one_line(&errors)));
    let compiled = compiled.unwrap_or_else(|| Err("it is too complex".to_owned()));
    compiled.map_err(|reason| format!("spec.commitStatusExpr is not a CEL expression: {reason}"))
}

fn execute(program: &Program, variables: Variables) -> Result<String, String> {
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    context.add_variable_from_value("event", value(variables.event));
    context.add_variable_from_value("alert", value(variables.alert));
    context.add_variable_from_value("provider", value(variables.provider));
    match program.execute(&context).map_err(|error| one_line(&error))? {
        Value::String(text) if text.is_empty() => Err("it gives an empty text".to_owned()),
        Value::String(text) => Ok(text.as_str().to_owned()),
        other => Err(format!("it gives {} where text is needed; string(…) converts", other.type_of())),
    }
}

/// Runs work on a thread of its own; nothing where it panics or is late.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Nobody may be waiting any more when it is done.
    let run = move || drop(sender.send(work()));
    std::thread::Builder::new().name("expression".to_owned()).stack_size(STACK).spawn(run).ok()?;
    receiver.recv_timeout(DEADLINE).ok()
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let words: Vec<String> = error.to_string().split_whitespace().map(str::to_owned).collect();
    cut_chars(&words.join(" "), 300)
}

/// JSON as CEL sees it in Flux: whole numbers are `int`. (The library's own conversion makes them `uint`, and `n + 1`
/// fails.)
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
            let map = fields.into_iter().map(|(key, field)| (Key::String(Arc::new(key)), value(field))).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(source: &str) -> Result<String, String> {
        let event = serde_json::json!({"reason": "Ready", "metadata": {"env": "prod", "revision": "main@sha1:abc"}});
        let alert = serde_json::json!({"metadata": {"generation": 3}, "spec": {"eventSources": [{"kind": "A"}, {"kind": "B"}]}});
        let provider = serde_json::json!({"metadata": {"name": "gh", "uid": "0c9c2e41-d2f9"}});
        Expression::new(source).evaluate(Variables { event, alert, provider })
    }

    #[test]
    fn expressions_read_event_alert_and_provider() {
        for (source, text) in [
            ("event.reason", "Ready"),
            ("event.metadata['env'] + '/' + provider.metadata.uid.split('-')[0]", "prod/0c9c2e41"),
            ("(provider.metadata.name + event.reason).lowerAscii()", "ghready"),
            ("has(event.metadata.missing) ? event.metadata.missing : 'none'", "none"),
            ("event.metadata.?missing.orValue('fallback')", "fallback"),
            ("alert.spec.eventSources.map(s, s.kind).join(',')", "A,B"),
            ("string(alert.metadata.generation + 1)", "4"),
        ] {
            assert_eq!(evaluate(source).as_deref(), Ok(text), "{source}");
        }
    }

    #[test]
    fn what_gives_no_text_is_refused_with_a_sentence() {
        for (source, sentence) in [
            ("42", "it gives int where text is needed"),
            ("''", "it gives an empty text"),
            ("event.metadata.missing", "missing"),
            ("nobody.metadata", "nobody"),
            ("event.", "is not a CEL expression"),
            ("'a' + 1", "can't be evaluated"),
            (&"a".repeat(LONGEST + 1), "at most 4096"),
        ] {
            let refusal = evaluate(source).unwrap_err();
            assert!(refusal.contains(sentence), "{source}: {refusal}");
        }
    }

    #[test]
    fn the_longest_expressions_do_not_end_the_process() {
        let terms = "'a'+".repeat(1023) + "'a'";
        assert_eq!(evaluate(&terms).map(|text| text.len()), Ok(1024));
        for (open, close) in
            [("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("{1:", "}"), ("true?'a':", ""), ("'a'.trim().", ""), ("a.", "")]
        {
            let deep = LONGEST / (open.len() + close.len()) - 2;
            let _ = evaluate(&format!("{}'a'{}", open.repeat(deep), close.repeat(deep)));
        }
    }

    #[test]
    fn an_expression_that_takes_too_long_is_not_tried_again() {
        let digits = "[1,2,3,4,5,6,7,8,9,0]";
        let expression = format!(
            "{digits}.all(a, {digits}.all(b, {digits}.all(c, {digits}.all(d, {digits}.all(e, {digits}.all(f, {digits}.all(g, \
             a + b + c + d + e + f + g < 1000))))))) ? 'y' : 'n'"
        );
        let expression = Expression::new(&expression);
        let variables = || Variables { event: Json::Null, alert: Json::Null, provider: Json::Null };
        assert!(expression.evaluate(variables()).unwrap_err().contains("longer than 1s"));
        assert!(expression.is_slow.load(Ordering::Relaxed));
        assert!(expression.evaluate(variables()).unwrap_err().contains("not tried again"));
    }
}
