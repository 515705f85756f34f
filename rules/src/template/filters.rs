//! The filters that templates may use: those of Jinja whose result is no larger than what goes in, and a few in a form that
//! is bounded.

use std::fmt::Write;

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind};

use super::program::{Escape, LONGEST_TEXT, Limited};

/// Jinja's own.
const OF_JINJA: [&str; 24] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "last",
    "length",
    "list",
    "lower",
    "max",
    "min",
    "reverse",
    "round",
    "safe",
    "sort",
    "title",
    "trim",
    "upper",
];
/// In a form of our own.
const OWN: [&str; 8] = ["e", "escape", "join", "lines", "replace", "split", "string", "truncate"];

/// So many parts of a text.
const MOST_PARTS: usize = 1_000;

/// Whether there is such a filter.
///
/// # Errors
/// A sentence with those that are there.
pub fn known(name: &str) -> Result<(), String> {
    if OF_JINJA.contains(&name) || OWN.contains(&name) {
        return Ok(());
    }
    let mut all = [&OF_JINJA[..], &OWN].concat();
    all.sort_unstable();
    Err(format!("there is no filter {name}; there are {}", all.join(", ")))
}

/// Adds those in a form of our own.
pub fn add(environment: &mut Environment<'_>, escape: Escape) {
    let escaped = move |value: &Value| -> Result<Value, Error> {
        if value.is_safe() {
            return Ok(value.clone());
        }
        text(value).map(|text| Value::from_safe_string(escape.apply(&text)))
    };
    environment.add_filter("escape", escaped);
    environment.add_filter("e", escaped);
    environment.add_filter("string", |value: &Value| text(value).map(Value::from));
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("split", split);
    environment.add_filter("lines", |value: &Value| parts(text(value)?.lines()));
    environment.add_filter("truncate", truncate);
}

fn join(values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = Limited::new(LONGEST_TEXT);
    for (position, value) in values.try_iter()?.enumerate() {
        let separator = if position == 0 { "" } else { separator.unwrap_or_default() };
        write!(joined, "{separator}{value}").map_err(|_| too_long("join"))?;
    }
    Ok(joined.into_text())
}

fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let text = text(value)?;
    let mut replaced = Limited::new(LONGEST_TEXT);
    for (position, part) in text.split(from).enumerate() {
        let to = if position == 0 { "" } else { to };
        write!(replaced, "{to}{part}").map_err(|_| too_long("replace"))?;
    }
    Ok(replaced.into_text())
}

fn split(value: &Value, separator: Option<&str>) -> Result<Value, Error> {
    let text = text(value)?;
    match separator {
        Some(separator) => parts(text.split(separator)),
        None => parts(text.split_whitespace()),
    }
}

/// At most so many characters; a cut text ends in an ellipsis.
fn truncate(value: &Value, length: usize, rest: Rest<Value>) -> Result<String, Error> {
    if !rest.is_empty() {
        return Err(Error::new(ErrorKind::TooManyArguments, "truncate takes a number of characters"));
    }
    let text = text(value)?;
    if text.chars().count() <= length {
        return Ok(text);
    }
    Ok(text.chars().take(length.saturating_sub(1)).chain(['…']).collect())
}

fn parts<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Value, Error> {
    let parts: Vec<&str> = parts.take(MOST_PARTS + 1).collect();
    if parts.len() > MOST_PARTS {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a text of more than {MOST_PARTS} parts")));
    }
    Ok(Value::from_iter(parts))
}

fn text(value: &Value) -> Result<String, Error> {
    let mut text = Limited::new(LONGEST_TEXT);
    write!(text, "{value}").map_err(|_| too_long("a value"))?;
    Ok(text.into_text())
}

fn too_long(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} gives more than {LONGEST_TEXT} bytes"))
}
