//! The size limit of rendered texts, and the escaping of values.

use std::fmt::{self, Write};

use minijinja::Error;

/// The maximum size of the result in bytes. Text in `{% set %}…{% endset %}` counts as well.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// How values are escaped. The text of the template itself is never escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Escape {
    /// No escaping.
    None,
    /// Replaces `&`, `<` and `>` with entities, as Slack requires. Also sufficient for HTML text.
    Entities,
    /// Percent-encodes all bytes except letters, digits and `-._~`. A missing value is an error.
    Url,
}

impl Escape {
    /// The escaped text.
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

/// A string that rejects writes beyond a limit.
pub(super) struct Limited {
    text: String,
    limit: usize,
    is_full: bool,
}

impl Limited {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            limit,
            is_full: false,
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_full |= text.len() > self.limit - self.text.len();
        if self.is_full {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// minijinja only writes whole characters.
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

pub(super) fn too_long() -> String {
    format!("the result has more than {MAX_TEXT_BYTES} bytes")
}

/// The message of a minijinja error on one line.
pub(super) fn error_message(error: &Error) -> String {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) if line > 0 => format!("line {line}: {detail}"),
        _ => detail,
    }
}
