//! Evaluates one expression. This runs in the child process only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value};
use serde_json::Value as Json;

use super::language::LANGUAGE;
use super::{Cause, Variables, Wrong};
use crate::text::cut_chars;

/// The longest expression in bytes. Its deepest tree fits into the stack of the child.
pub const LONGEST: usize = 4096;
/// The longest result in bytes.
pub const LONGEST_RESULT: usize = 64 << 10;

/// The text that an expression gives.
///
/// # Errors
/// It does not compile, fails, or gives no text.
pub fn evaluate(source: &str, variables: Variables) -> Result<String, Wrong> {
    let work = || execute(&compile(source)?, variables);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let sentence = "the CEL library fails; simplify the expression";
        Err(Wrong::new(Cause::Values, sentence))
    })
}

fn compile(source: &str) -> Result<Program, Wrong> {
    let wrong = |sentence| Wrong::new(Cause::Text, sentence);
    if source.len() > LONGEST {
        return Err(wrong(format!(
            "it has {} bytes; shorten it to {LONGEST}",
            source.len()
        )));
    }
    LANGUAGE
        .compile(source)
        .map_err(|errors| wrong(format!("it is not valid CEL: {}", one_line(&errors))))
}

fn execute(program: &Program, variables: Variables) -> Result<String, Wrong> {
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    context.add_variable_from_value("event", value(variables.event));
    context.add_variable_from_value("alert", value(variables.alert));
    context.add_variable_from_value("provider", value(variables.provider));
    let text = match program.execute(&context) {
        Ok(Value::String(text)) => text,
        Ok(other) => {
            let sentence = format!("it gives {}; convert it with string(…)", other.type_of());
            return Err(Wrong::new(Cause::Types, sentence));
        }
        Err(error) => return Err(failed(&error)),
    };
    let sentence = match text.len() {
        0 => "it gives an empty string; a commit status needs an id".to_owned(),
        bytes if bytes > LONGEST_RESULT => {
            format!("it gives {bytes} bytes; at most {LONGEST_RESULT} are accepted")
        }
        _ => return Ok(text.as_str().to_owned()),
    };
    Err(Wrong::new(Cause::Values, sentence))
}

fn failed(error: &ExecutionError) -> Wrong {
    let cause = match error {
        ExecutionError::UndeclaredReference(_) => Cause::Text,
        ExecutionError::NoSuchKey(key) => Cause::Key(cut_chars(key, MOST_CHARACTERS)),
        ExecutionError::FunctionError { .. }
        | ExecutionError::DivisionByZero(_)
        | ExecutionError::RemainderByZero(_)
        | ExecutionError::Overflow(..)
        | ExecutionError::IndexOutOfBounds(_)
        | ExecutionError::DuplicateKey(_)
        | ExecutionError::InternalError(_) => Cause::Values,
        _ => Cause::Types,
    };
    let sentence = format!("it fails for this event: {}", one_line(error));
    Wrong::new(cause, sentence)
}

/// The longest text of an error, and the longest key in one.
const MOST_CHARACTERS: usize = 300;

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut words = text.split_whitespace();
    let mut line = words.next().unwrap_or_default().to_owned();
    for word in words {
        if line.len() > 4 * MOST_CHARACTERS {
            break;
        }
        line = line + " " + word;
    }
    cut_chars(&line, MOST_CHARACTERS)
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
