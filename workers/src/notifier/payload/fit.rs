//! Fits a message and its metadata into the size limits of a service.

use crate::text::{ELLIPSIS, cut_bytes, cut_chars, cut_utf16};

/// How a service counts, and how a text is cut. A cut text ends in an ellipsis.
#[derive(Clone, Copy)]
pub struct Unit {
    /// The size of a text.
    pub size: fn(&str) -> usize,
    /// The text, cut to a size.
    pub cut: fn(&str, usize) -> String,
}

/// Bytes of UTF-8.
pub const BYTES: Unit = Unit {
    size: str::len,
    cut: cut_bytes,
};
/// Unicode characters.
pub const CHARACTERS: Unit = Unit {
    size: characters,
    cut: cut_chars,
};
/// UTF-16 code units. They are never fewer than the characters, so they also serve for services
/// that do not state which of the two they count.
pub const UTF16: Unit = Unit {
    size: utf16_size,
    cut: cut_utf16,
};
/// Bytes of UTF-8 in a JSON string, with escapes and without quotes.
pub const JSON_BYTES: Unit = Unit {
    size: json_bytes,
    cut: cut_json_bytes,
};
/// The same, in JSON as Go writes it.
pub const GO_JSON_BYTES: Unit = Unit {
    size: go_json_bytes,
    cut: cut_go_json_bytes,
};
/// UTF-16 code units in a JSON string, with escapes and without quotes.
pub const JSON_UTF16: Unit = Unit {
    size: json_utf16,
    cut: cut_json_utf16,
};

/// A message and its metadata, cut to fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The message.
    pub message: String,
    /// Keys and values.
    pub fields: Vec<(String, String)>,
}

impl Fitted {
    /// The fields, each as this line.
    pub fn lines(&self, line: impl Fn(&str, &str) -> String) -> String {
        let fields = self.fields.iter();
        fields.map(|(key, value)| line(key, value)).collect()
    }
}

/// Cuts message and fields to a total of `room`. Each field needs `per_field` besides its key and
/// value.
///
/// The message is cut first, down to half of the room. Then the field that exceeds the limit is
/// cut, and later fields are dropped.
pub fn fit<K: Into<String>, V: AsRef<str>>(
    unit: Unit,
    room: usize,
    message: &str,
    fields: impl Iterator<Item = (K, V)>,
    per_field: usize,
) -> Fitted {
    let room_for_fields = room.saturating_sub((unit.size)(message)).max(room / 2);
    let fields = fields.map(|(key, value)| (key.into(), value));
    let (fields, taken) = fit_fields(unit, room_for_fields, fields, per_field);
    Fitted {
        message: (unit.cut)(message, room.saturating_sub(taken)),
        fields,
    }
}

/// The fields that fit, and their size.
fn fit_fields(
    unit: Unit,
    room: usize,
    fields: impl Iterator<Item = (String, impl AsRef<str>)>,
    per_field: usize,
) -> (Vec<(String, String)>, usize) {
    let (mut fitted, mut left) = (Vec::new(), room);
    for (key, value) in fields {
        let Some(left_for_value) = left.checked_sub(per_field + (unit.size)(&key)) else {
            break;
        };
        let value = value.as_ref();
        // Not even an ellipsis would fit.
        if (unit.size)(value) > left_for_value && left_for_value < ELLIPSIS.len_utf8() {
            break;
        }
        let value = (unit.cut)(value, left_for_value);
        left = left_for_value - (unit.size)(&value);
        fitted.push((key, value));
    }
    (fitted, room - left)
}

fn characters(text: &str) -> usize {
    text.chars().count()
}

fn utf16_size(text: &str) -> usize {
    text.encode_utf16().count()
}

fn json_bytes(text: &str) -> usize {
    text.chars()
        .map(|character| in_json(character, character.len_utf8()))
        .sum()
}

fn json_utf16(text: &str) -> usize {
    text.chars()
        .map(|character| in_json(character, character.len_utf16()))
        .sum()
}

fn cut_json_bytes(text: &str, limit: usize) -> String {
    cut_json(text, limit, json_bytes, char::len_utf8)
}

fn go_json_bytes(text: &str) -> usize {
    text.chars()
        .map(|character| in_json(character, in_go(character)))
        .sum()
}

fn cut_go_json_bytes(text: &str, limit: usize) -> String {
    cut_json(text, limit, go_json_bytes, in_go)
}

/// The size of a character that needs no escape in JSON, but may need one in Go's.
fn in_go(character: char) -> usize {
    match character {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        _ => character.len_utf8(),
    }
}

fn cut_json_utf16(text: &str, limit: usize) -> String {
    cut_json(text, limit, json_utf16, char::len_utf16)
}

fn cut_json(text: &str, limit: usize, size: fn(&str) -> usize, plain: fn(char) -> usize) -> String {
    if size(text) <= limit {
        return text.to_owned();
    }
    let mut left = limit.saturating_sub(plain(ELLIPSIS));
    let fits = |character: &char| {
        let needed = in_json(*character, plain(*character));
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    text.chars().take_while(fits).chain([ELLIPSIS]).collect()
}

/// The size of a character in the JSON that serde_json writes. `plain` is its size without escapes.
fn in_json(character: char, plain: usize) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_core::model::flux;

    use super::*;

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_message_is_cut_first_then_the_last_fields() {
        let (short, long) = (
            [("k", "1234")],
            [("k", "1234"), ("l", "123456789"), ("m", "1")],
        );
        for (room, message, fields, fitted, kept) in [
            (20, "message", &short[..], "message", &[("k", "1234")][..]),
            (14, "messages!", &short, "messag…", &[("k", "1234")]),
            (
                30,
                "message",
                &long,
                "message",
                &[("k", "1234"), ("l", "123456789"), ("m", "1")],
            ),
            (
                20,
                "a long message",
                &long,
                "a long messa…",
                &[("k", "1234")],
            ),
            (
                26,
                "a long message",
                &long,
                "a long messa…",
                &[("k", "1234"), ("l", "12…")],
            ),
        ] {
            let got = fit(UTF16, room, message, fields.iter().copied(), 2);
            assert_eq!(
                got,
                Fitted {
                    message: fitted.into(),
                    fields: pairs(kept)
                },
                "{room} {message:?}"
            );
        }
    }

    #[test]
    fn sizes_in_json_are_those_of_serde_json() {
        for text in [
            "",
            "plain",
            "\"\\\n\r\t\u{8}\u{c}\u{b}\u{1f}\u{7f}",
            "é 🚀 \u{2028} </b>",
        ] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(json_bytes(text) + 2, json.len(), "{text:?}");
            let go = flux::to_go_json(&text);
            assert_eq!(go_json_bytes(text) + 2, go.len(), "{text:?}");
            assert_eq!(
                json_utf16(text) + 2,
                json.encode_utf16().count(),
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_result_never_exceeds_the_room(
            message in ".{0,60}",
            fields in proptest::collection::vec((".{0,8}", ".{0,30}"), 0..5),
            room in 8usize..120,
        ) {
            for unit in [BYTES, CHARACTERS, UTF16, JSON_BYTES, GO_JSON_BYTES, JSON_UTF16] {
                let fitted = fit(unit, room, &message, fields.clone().into_iter(), 3);
                let of_fields: usize = fitted.fields.iter().map(|(key,
                    value)| 3 + (unit.size)(key) + (unit.size)(value)).sum();
                prop_assert!((unit.size)(&fitted.message) + of_fields <= room);
            }
        }
    }
}
