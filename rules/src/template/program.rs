//! Compiled templates, and their rendering.

use std::fmt::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use serde::Serialize;

use super::output::{Escape, Limited, MAX_TEXT_BYTES, error_message, too_long};
use super::{filters, language};

/// The maximum size of a template in bytes.
pub const MAX_SOURCE_BYTES: usize = 16 << 10;
/// The maximum length of a title in characters.
const MAX_TITLE_LENGTH: usize = 256;
/// The maximum number of instructions. A typical template needs a few hundred.
const FUEL: u64 = 10_000;
/// The name of the only template in each minijinja environment.
const NAME: &str = "template";

/// The result of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The value of `title`, if the template sets it: one line with at most 256 characters.
    pub title: Option<String>,
    /// The text without surrounding white space; never empty.
    pub text: String,
}

/// A compiled template.
///
/// # Guarantees
/// Rendering ends after a bounded number of steps and uses a bounded amount of memory, for any
/// template.
pub struct Program {
    environment: Environment<'static>,
    escape: Escape,
}

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// A message with the line and the reason.
    pub fn compile(source: &str, escape: Escape) -> Result<Self, String> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!(
                "has {} bytes; shorten it to at most {MAX_SOURCE_BYTES} bytes",
                source.len()
            ));
        }
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| error_message(&error))?;
        language::check(source, syntax.clone())?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        if escape != Escape::None {
            // Prevents a second escape of the contents of blocks.
            environment.set_auto_escape_callback(|_| AutoEscape::Custom("own".into()));
        }
        if escape == Escape::Url {
            environment.set_undefined_behavior(UndefinedBehavior::Strict);
        }
        environment
            .set_formatter(move |output, state, value| write_counted(output, state, value, escape));
        filters::add(&mut environment, escape);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| error_message(&error))?;
        Ok(Self {
            environment,
            escape,
        })
    }

    /// Renders the template with the variables of `scope`.
    ///
    /// # Errors
    /// A message with the line and the reason.
    pub fn render(&self, scope: &impl Serialize) -> Result<Rendered, String> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| error_message(&error))?;
        let mut written = Limited::new(MAX_TEXT_BYTES);
        let captured = template
            .render_captured_to(Value::from(Serde(scope)), &mut written)
            .map_err(|error| {
                if written.is_full() {
                    too_long()
                } else {
                    error_message(&error)
                }
            })?;
        let title = captured
            .state()
            .lookup("title")
            .map(|title| self.title(&title))
            .transpose()?;
        let text = written.into_text().trim().to_owned();
        if text.is_empty() {
            return Err("the result is empty".to_owned());
        }
        Ok(Rendered {
            title: title.filter(|title| !title.is_empty()),
            text,
        })
    }

    /// The names that the template reads and does not assign, such as `event.message`. Control flow
    /// is not considered.
    pub fn names_read(&self) -> Vec<String> {
        let Ok(template) = self.environment.get_template(NAME) else {
            return Vec::new();
        };
        let mut names: Vec<_> = template.undeclared_variables(true).into_iter().collect();
        names.sort();
        names
    }

    /// The title on one line.
    fn title(&self, value: &Value) -> Result<String, String> {
        if value.is_undefined() || value.is_none() {
            return Ok(String::new());
        }
        let mut text = Limited::new(MAX_TEXT_BYTES);
        write!(text, "{value}").map_err(|_| too_long())?;
        let title = text
            .into_text()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let title = match title.char_indices().nth(MAX_TITLE_LENGTH - 1) {
            Some((end, last)) if end + last.len_utf8() < title.len() => {
                format!("{}…", &title[..end])
            }
            _ => title,
        };
        Ok(if value.is_safe() {
            title
        } else {
            self.escape.apply(&title)
        })
    }
}

/// The number of bytes written so far, including those in blocks.
struct Written(usize);

fn write_counted(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
    escape: Escape,
) -> Result<(), Error> {
    if value.is_undefined() || value.is_none() {
        return if escape == Escape::Url {
            Err(Error::from(ErrorKind::UndefinedError))
        } else {
            Ok(())
        };
    }
    let before = state
        .get_extension::<Written>()
        .map_or(0, |written| written.0);
    let mut text = Limited::new(MAX_TEXT_BYTES - before);
    let full = |_: fmt::Error| Error::new(ErrorKind::WriteFailure, too_long());
    write!(text, "{value}").map_err(full)?;
    let text = text.into_text();
    let text = if value.is_safe() {
        text
    } else {
        escape.apply(&text)
    };
    let after = before + text.len();
    if after > MAX_TEXT_BYTES {
        return Err(full(fmt::Error));
    }
    state.get_or_insert_extension(Written(0)).0 = after;
    output.write_str(&text).map_err(full)
}

#[cfg(test)]
mod tests;
