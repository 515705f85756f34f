//! The filters that templates may use: those of Jinja whose result is no larger than what goes in,
//! and a few in a form that is bounded.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::program::{Escape, LONGEST_TEXT, Limited};

/// Jinja's own.
const OF_JINJA: &str = "abs bool capitalize count d default dictsort first float int items last length lower max min reverse round \
                        safe title trim upper";
/// In a form of our own.
const OWN: &str = "e escape join lines list replace sort split string truncate";

/// So many parts of a text, or values of a list that is made: a letter takes 24 bytes as a value.
const MOST_PARTS: usize = 1_000;

/// Whether there is such a filter.
///
/// # Errors
/// A sentence with those that are there.
pub fn known(name: &str) -> Result<(), String> {
    let mut all: Vec<&str> = OF_JINJA.split(' ').chain(OWN.split(' ')).collect();
    if all.contains(&name) {
        return Ok(());
    }
    all.sort_unstable();
    Err(format!(
        "there is no filter {name}; there are {}",
        all.join(", ")
    ))
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
    environment.add_filter("list", |state: &State<'_, '_>, value: Value| {
        few(&value)?;
        filters::list(state, value)
    });
    environment.add_filter(
        "sort",
        |state: &State<'_, '_>, value: Value, options: Kwargs| {
            few(&value)?;
            filters::sort(state, value, options)
        },
    );
}

fn join(values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = Limited::new(LONGEST_TEXT);
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

/// Refuses what would make a long list. What is none at all is left to the filter.
fn few(value: &Value) -> Result<(), Error> {
    let count = value
        .try_iter()
        .map_or(0, |values| values.take(MOST_PARTS + 1).count());
    if count > MOST_PARTS {
        Err(too_many())
    } else {
        Ok(())
    }
}

fn parts<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Value, Error> {
    let parts: Vec<&str> = parts.take(MOST_PARTS + 1).collect();
    if parts.len() > MOST_PARTS {
        return Err(too_many());
    }
    Ok(Value::from_iter(parts))
}

fn text(value: &Value) -> Result<String, Error> {
    let mut text = Limited::new(LONGEST_TEXT);
    write!(text, "{value}").map_err(|_| too_long("a value"))?;
    Ok(text.into_text())
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a list of more than {MOST_PARTS} parts"),
    )
}

fn too_long(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("{what} gives more than {LONGEST_TEXT} bytes"),
    )
}
