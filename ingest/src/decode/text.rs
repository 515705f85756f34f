//! The text of a body, with what Go's decoder does before it looks at fields: bytes that are not
//! UTF-8 and surrogates without a partner become U+FFFD, and nesting has a limit.

use std::borrow::Cow;
use std::str;

/// Go refuses JSON that is nested more deeply.
const MAX_DEPTH: usize = 10_000;
/// The length of `\u` and its four digits.
const ESCAPE: usize = 6;

/// The body as text. Valid UTF-8 is not copied.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // One for each byte, as in Go. Rust's standard library writes one for a whole sequence.
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// The JSON with `\ufffd` in place of each escaped surrogate without a partner. JSON without such
/// escapes is not copied.
pub(super) fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = json[at..].find('\\') {
        at += found;
        let length = match (surrogate(json, at), surrogate(json, at + ESCAPE)) {
            (Some(Surrogate::High), Some(Surrogate::Low)) => 2 * ESCAPE,
            (Some(_), _) => {
                replaced.push_str(&json[copied..at]);
                replaced.push_str("\\ufffd");
                copied = at + ESCAPE;
                ESCAPE
            }
            // The backslash and the character after it, which may be another backslash.
            (None, _) => 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

enum Surrogate {
    High,
    Low,
}

/// The surrogate whose escape begins at this byte.
fn surrogate(json: &str, at: usize) -> Option<Surrogate> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix("\\u")?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..=0xdbff => Some(Surrogate::High),
        0xdc00..=0xdfff => Some(Surrogate::Low),
        _ => None,
    }
}

/// Whether arrays and objects are nested more deeply than Go allows.
pub(super) fn is_too_deep(json: &str) -> bool {
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_that_is_not_utf8_becomes_a_replacement_character() {
        assert_eq!(text(b"a\xffb\xc3(c"), "a\u{fffd}b\u{fffd}(c");
        assert_eq!(text(b"\xe2\x82"), "\u{fffd}\u{fffd}");
        assert!(matches!(text("é".as_bytes()), Cow::Borrowed("é")));
    }

    #[test]
    fn only_surrogates_without_a_partner_are_replaced() {
        for (json, expected) in [
            (r#""\ud83d\ude80""#, r#""\ud83d\ude80""#),
            (r#""\uD83D\uDE80 \u00e9""#, r#""\uD83D\uDE80 \u00e9""#),
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\uDfFf""#, r#""\ufffd""#),
            (r#""\ud800\ud83d\ude80""#, r#""\ufffd\ud83d\ude80""#),
            (r#""\ude80\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud800x\udc00é""#, r#""\ufffdx\ufffdé""#),
            (r#""\\ud800\\\udc00""#, r#""\\ud800\\\ufffd""#),
            (r#""\ud8"#, r#""\ud8"#),
            (r#""\é\"#, r#""\é\"#),
            (r#""\ud80é""#, r#""\ud80é""#),
        ] {
            assert_eq!(without_lone_surrogates(json), expected, "{json}");
        }
        let plain = r#"{"a\n":"\u00e9"}"#;
        assert!(matches!(without_lone_surrogates(plain), Cow::Borrowed(_)));
    }

    #[test]
    fn brackets_in_strings_are_not_nesting() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(MAX_DEPTH)));
        assert!(is_too_deep(&nested(MAX_DEPTH + 1)));
        assert!(!is_too_deep(&format!(
            "\"\\\"{}\"",
            "[".repeat(MAX_DEPTH + 1)
        )));
        assert!(!is_too_deep(&format!(
            "[{}]",
            vec!["[]"; MAX_DEPTH].join(",")
        )));
    }
}
