//! Headers for a bridge's URL, from a file, because they usually hold credentials.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidings_core::runtime::reload::read_file;

/// The most bytes of the file.
const MOST_BYTES: usize = 64 << 10;

/// Reads a file with one `Name: value` per line. Empty lines are ignored.
///
/// # Errors
/// The file cannot be read or is too large, or a line is no header; the error does not repeat it.
pub fn read(file: &Path) -> anyhow::Result<HeaderMap> {
    let named = || format!("--headers-file {}", file.display());
    let content = read_file(file, MOST_BYTES);
    let content = content.map_err(|why| anyhow!("--headers-file: {why}"))?;
    let text = String::from_utf8(content).map_err(|_| anyhow!("{}: is not text", named()))?;
    parse(&text).with_context(named)
}

fn parse(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let header = header(line).with_context(|| {
            let number = number + 1;
            format!("line {number}: expected a header such as `Authorization: Bearer …`")
        })?;
        headers.append(header.0, header.1);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().parse().ok()?;
    let mut value: HeaderValue = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_header_and_errors_do_not_repeat_it() {
        let headers = parse("Authorization: Bearer a:b\n\nX-Team:  ops \n").unwrap();
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!(headers["x-team"], "ops");
        assert!(headers["authorization"].is_sensitive());
        for text in ["hunter2", "A: b\nhunter2 : c\u{7f}", "bad name: hunter2"] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains("line "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
