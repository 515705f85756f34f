//! Cuts texts, and makes them safe for terminals.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Marks the place where a text was cut.
pub const ELLIPSIS: char = '…';

/// Cuts a text to `limit` bytes, including an ellipsis.
pub fn cut_bytes(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// A text of others on one line. Characters that a terminal acts on, instead of showing them, are
/// written as JSON does (`\u001b`): controls, line breaks and the controls of bidirectional text. A
/// line of JSON keeps its meaning.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => visible.push_str("\\n"),
            '\r' => visible.push_str("\\r"),
            '\t' => visible.push_str("\\t"),
            _ if is_control(character) => {
                // Writing to a String does not fail.
                let _ = write!(visible, "\\u{:04x}", u32::from(character));
            }
            _ => visible.push(character),
        }
    }
    Cow::Owned(visible)
}

fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_acts_on_are_shown_and_all_others_are_kept() {
        let foreign = "a\u{1b}[2Jb\r\nc\td\u{9b}e\u{202e}f\u{2066}g\u{7f}h\u{2028}i";
        assert_eq!(
            visible(foreign),
            r"a\u001b[2Jb\r\nc\td\u009be\u202ef\u2066g\u007fh\u2028i"
        );
        let plain = r#"plain é 漢 🚀 "\" {}"#;
        assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn a_line_of_json_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{202e}": "\u{1b}[m\n\u{9b}\\\u{7f}"});
        let line = value.to_string();
        assert_ne!(visible(&line), line);
        let read: serde_json::Value = serde_json::from_str(&visible(&line)).unwrap();
        assert_eq!(read, value);
    }
}
