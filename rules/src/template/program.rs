//! A template, compiled, and what comes of it for one event.

use std::fmt::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use serde::Serialize;

use super::{filters, language};

/// The longest template, in bytes.
pub const LONGEST_SOURCE: usize = 16 << 10;
/// The longest text that a template gives, in bytes; what goes through `{% set %}…{% endset %}`
/// counts too.
pub const LONGEST_TEXT: usize = 64 << 10;
/// The longest title, in characters.
const LONGEST_TITLE: usize = 256;
/// Instructions. Sane templates need some hundred.
const FUEL: u64 = 10_000;
/// minijinja looks templates up by name; each environment has one.
const NAME: &str = "template";

/// What is done to values that a template writes out; the template's own text stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Escape {
    /// Nothing.
    None,
    /// `&`, `<` and `>` become entities: what Slack asks for, and enough for HTML between tags.
    Entities,
    /// All but letters, digits and `-._~` are percent-encoded; a value that is not there is an
    /// error.
    Url,
}

/// What a template gives for an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The value of `title`, where the template sets it: one line, cut at 256 characters.
    pub title: Option<String>,
    /// The text, without white space around it; never empty.
    pub text: String,
}

/// A template that can be rendered.
///
/// # Guarantees
/// Rendering ends within a bounded number of steps, and takes a bounded amount of memory, whatever
/// the template says.
pub struct Program {
    environment: Environment<'static>,
    escape: Escape,
}

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// A sentence with the line and what is wrong there.
    pub fn compile(source: &str, escape: Escape) -> Result<Self, String> {
        if source.len() > LONGEST_SOURCE {
            return Err(format!(
                "has {} bytes; at most {LONGEST_SOURCE} are allowed",
                source.len()
            ));
        }
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| sentence(&error))?;
        language::check(source, syntax.clone())?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        if escape != Escape::None {
            // So that what a block has escaped is not escaped again.
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
            .map_err(|error| sentence(&error))?;
        Ok(Self {
            environment,
            escape,
        })
    }

    /// Renders it with these names in scope.
    ///
    /// # Errors
    /// A sentence with the line and what went wrong there.
    pub fn render(&self, scope: &impl Serialize) -> Result<Rendered, String> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| sentence(&error))?;
        let mut written = Limited::new(LONGEST_TEXT);
        let captured = template
            .render_captured_to(Value::from(Serde(scope)), &mut written)
            .map_err(|error| {
                if written.is_full {
                    too_long()
                } else {
                    sentence(&error)
                }
            })?;
        let title = captured
            .state()
            .lookup("title")
            .map(|title| self.title(&title))
            .transpose()?;
        let text = written.into_text().trim().to_owned();
        if text.is_empty() {
            return Err("gives no text".to_owned());
        }
        Ok(Rendered {
            title: title.filter(|title| !title.is_empty()),
            text,
        })
    }

    /// On one line.
    fn title(&self, value: &Value) -> Result<String, String> {
        if value.is_undefined() || value.is_none() {
            return Ok(String::new());
        }
        let mut text = Limited::new(LONGEST_TEXT);
        write!(text, "{value}").map_err(|_| too_long())?;
        let title = text
            .into_text()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let title = match title.char_indices().nth(LONGEST_TITLE - 1) {
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

impl Escape {
    /// The text with what is special in it escaped.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Entities => text
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;"),
            Self::Url => {
                let mut escaped = String::with_capacity(text.len());
                for byte in text.bytes() {
                    match byte {
                        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                            escaped.push(char::from(byte))
                        }
                        // Writing to a String does not fail.
                        _ => drop(write!(escaped, "%{byte:02X}")),
                    }
                }
                escaped
            }
        }
    }
}

/// So many bytes a rendering has written, also into blocks.
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
    let mut text = Limited::new(LONGEST_TEXT - before);
    let full = |_: fmt::Error| Error::new(ErrorKind::WriteFailure, too_long());
    write!(text, "{value}").map_err(full)?;
    let text = text.into_text();
    let text = if value.is_safe() {
        text
    } else {
        escape.apply(&text)
    };
    let after = before + text.len();
    if after > LONGEST_TEXT {
        return Err(full(fmt::Error));
    }
    state.get_or_insert_extension(Written(0)).0 = after;
    output.write_str(&text).map_err(full)
}

fn too_long() -> String {
    format!("gives more than {LONGEST_TEXT} bytes")
}

/// An error of minijinja, in one line.
pub(super) fn sentence(error: &Error) -> String {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) if line > 0 => format!("line {line}: {detail}"),
        _ => detail,
    }
}

/// A text that refuses to grow beyond a limit.
pub(super) struct Limited {
    text: String,
    most: usize,
    is_full: bool,
}

impl Limited {
    pub(super) fn new(most: usize) -> Self {
        Self {
            text: String::new(),
            most,
            is_full: false,
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_full |= text.len() > self.most - self.text.len();
        if self.is_full {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// minijinja writes whole characters.
impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.write_str(text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
