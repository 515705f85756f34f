//! The supported filters: those of Jinja whose result is no larger than their input, and bounded
//! versions of some others.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::output::{Escape, Limited, MAX_TEXT_BYTES};

/// Filters of minijinja.
const OF_JINJA: &str = "abs bool capitalize count d default dictsort first float int items last \
                        length lower max min reverse round safe title trim upper";
/// Filters with a bounded implementation of our own.
const OWN: &str = "e escape join lines list replace sort split string truncate";

/// The maximum number of elements of a list. A character uses 24 bytes as a value.
const MAX_ELEMENTS: usize = 1_000;

/// Checks that a filter is supported.
///
/// # Errors
/// A message that lists the supported filters.
pub fn check_name(name: &str) -> Result<(), String> {
    let mut all: Vec<&str> = OF_JINJA.split(' ').chain(OWN.split(' ')).collect();
    if all.contains(&name) {
        return Ok(());
    }
    all.sort_unstable();
    Err(format!(
        "filter {name} is not supported; use one of {}",
        all.join(", ")
    ))
}

/// Adds the bounded filters.
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
    environment.add_filter("list", |state: &State<'_, '_>, value: Value| {
        check_count(&value)?;
        filters::list(state, value)
    });
    environment.add_filter(
        "sort",
        |state: &State<'_, '_>, value: Value, options: Kwargs| {
            check_count(&value)?;
            filters::sort(state, value, options)
        },
    );
}

fn join(values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = Limited::new(MAX_TEXT_BYTES);
    for (position, value) in values.try_iter()?.enumerate() {
        let separator = if position == 0 {
            ""
        } else {
            separator.unwrap_or_default()
        };
        write!(joined, "{separator}{value}").map_err(|_| too_long("join"))?;
    }
    Ok(joined.into_text())
}

fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let text = text(value)?;
    let mut replaced = Limited::new(MAX_TEXT_BYTES);
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

/// Truncates a text to a number of characters. A truncated text ends in an ellipsis.
fn truncate(value: &Value, length: usize, rest: Rest<Value>) -> Result<String, Error> {
    if !rest.is_empty() {
        return Err(Error::new(
            ErrorKind::TooManyArguments,
            "truncate takes a number of characters",
        ));
    }
    let text = text(value)?;
    if text.chars().count() <= length {
        return Ok(text);
    }
    Ok(text
        .chars()
        .take(length.saturating_sub(1))
        .chain(['…'])
        .collect())
}

/// Rejects a value with too many elements. The filter itself rejects other values.
fn check_count(value: &Value) -> Result<(), Error> {
    let count = value
        .try_iter()
        .map_or(0, |values| values.take(MAX_ELEMENTS + 1).count());
    if count > MAX_ELEMENTS {
        Err(too_many())
    } else {
        Ok(())
    }
}

fn parts<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Value, Error> {
    let parts: Vec<&str> = parts.take(MAX_ELEMENTS + 1).collect();
    if parts.len() > MAX_ELEMENTS {
        return Err(too_many());
    }
    Ok(Value::from_iter(parts))
}

fn text(value: &Value) -> Result<String, Error> {
    let mut text = Limited::new(MAX_TEXT_BYTES);
    write!(text, "{value}").map_err(|_| too_long("a value"))?;
    Ok(text.into_text())
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the list has more than {MAX_ELEMENTS} elements"),
    )
}

fn too_long(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the result of {what} has more than {MAX_TEXT_BYTES} bytes"),
    )
}
