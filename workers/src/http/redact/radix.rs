//! Bytes as text: base64, base32 and hexadecimal, also in several lines.
//!
//! Where an encoded secret begins is unknown: it may follow other letters, or be in the middle of
//! longer data. So a text is decoded from each of the first characters after which bytes can begin.

use std::ops::Range;

use super::views::Character;

/// The shortest decoded text that is kept. No shorter part of a secret is searched for.
const SHORTEST: usize = 8;

/// Decodes base64, also with the alphabet for URLs.
pub fn base64(characters: &[Character]) -> Option<Vec<Character>> {
    let digit = |value: char| {
        Some(match value {
            'A'..='Z' => value as u32 - 'A' as u32,
            'a'..='z' => value as u32 - 'a' as u32 + 26,
            '0'..='9' => value as u32 - '0' as u32 + 52,
            '+' | '-' => 62,
            '/' | '_' => 63,
            _ => return None,
        })
    };
    let runs = runs(characters, digit, |_| false);
    decoded(&runs, 6)
}

/// Decodes base32 in upper or lower case.
pub fn base32(characters: &[Character]) -> Option<Vec<Character>> {
    let digit = |value: char| match value.to_ascii_uppercase() {
        upper @ 'A'..='Z' => Some(upper as u32 - 'A' as u32),
        digit @ '2'..='7' => Some(digit as u32 - '2' as u32 + 26),
        _ => None,
    };
    decoded(&runs(characters, digit, |value| value == '-'), 5)
}

/// Decodes hexadecimal digits: `5333`, `53 33`, `53:33` or `0x53, 0x33`.
pub fn hexadecimal(characters: &[Character]) -> Option<Vec<Character>> {
    let separates = |value| matches!(value, ':' | '-' | ',' | '\\' | 'x' | 'X');
    let mut runs = runs(characters, |value| value.to_digit(16), separates);
    for run in &mut runs {
        without_prefixes(run, characters);
    }
    decoded(&runs, 4)
}

/// Removes the zero of each `0x`.
fn without_prefixes(run: &mut Vec<Digit>, characters: &[Character]) {
    run.retain(|digit| {
        let next = characters.get(digit.at + 1);
        !(digit.value == 0 && next.is_some_and(|next| matches!(next.value, 'x' | 'X')))
    });
}

/// A digit of an encoding.
struct Digit {
    value: u32,
    /// The index of its character.
    at: usize,
    origin: Range<usize>,
}

/// The digits that are next to each other but for white space and separators.
fn runs(
    characters: &[Character],
    digit: impl Fn(char) -> Option<u32>,
    separates: impl Fn(char) -> bool,
) -> Vec<Vec<Digit>> {
    let mut runs = vec![Vec::new()];
    for (at, Character { value, origin }) in characters.iter().enumerate() {
        match (digit(*value), runs.last_mut()) {
            (Some(value), Some(run)) => {
                let origin = origin.clone();
                run.push(Digit { value, at, origin });
            }
            (None, Some(run)) => {
                let is_within = value.is_whitespace() || is_invisible(*value) || separates(*value);
                if !is_within && !run.is_empty() {
                    runs.push(Vec::new());
                }
            }
            _ => {}
        }
    }
    runs
}

/// Whether a character has no width, so that people do not see it.
fn is_invisible(value: char) -> bool {
    value.is_control()
        || matches!(
            value,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
        )
}

/// The readable texts in runs of digits of `bits` bits, each after a NUL.
fn decoded(runs: &[Vec<Digit>], bits: usize) -> Option<Vec<Character>> {
    let mut readable = Vec::new();
    // After so many digits, bytes begin at the same bit of a digit again.
    let phases = match bits {
        4 => 2,
        5 => 8,
        _ => 4,
    };
    for run in runs.iter().filter(|run| run.len() * bits >= SHORTEST * 8) {
        for phase in 0..phases {
            let digits = run.get(phase..).unwrap_or_default();
            let (bytes, origins) = bytes(digits, bits);
            keep_readable(&bytes, &origins, &mut readable);
        }
    }
    (!readable.is_empty()).then_some(readable)
}

fn bytes(digits: &[Digit], bits: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = Vec::with_capacity(digits.len() * bits / 8);
    let mut origins: Vec<Range<usize>> = Vec::with_capacity(bytes.capacity());
    let (mut value, mut filled) = (0u32, 0);
    let mut start = None;
    for digit in digits {
        value = (value << bits) | digit.value;
        filled += bits;
        let first = *start.get_or_insert(digit.origin.start);
        if filled >= 8 {
            filled -= 8;
            bytes.push(u8::try_from((value >> filled) & 0xff).unwrap_or_default());
            origins.push(first..digit.origin.end);
            value &= (1 << filled) - 1;
            start = (filled > 0).then_some(digit.origin.start);
        }
    }
    // A digit that was cut from its byte also holds bits of the byte.
    if let (Some(last), Some(digit)) = (origins.last_mut(), digits.last()) {
        last.end = digit.origin.end;
    }
    (bytes, origins)
}

/// Keeps each part of at least [`SHORTEST`] characters without controls. Bytes that are no UTF-8
/// end a part, and NULs (of UTF-16) are ignored.
fn keep_readable(bytes: &[u8], origins: &[Range<usize>], readable: &mut Vec<Character>) {
    let mut start = readable.len();
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        for value in chunk.valid().chars() {
            let origin = origins[at].start..origins[at + value.len_utf8() - 1].end;
            at += value.len_utf8();
            match value {
                '\0' => {}
                _ if value.is_ascii_control() && !value.is_whitespace() => {
                    start = end_part(readable, start);
                }
                _ => readable.push(Character { value, origin }),
            }
        }
        if !chunk.invalid().is_empty() {
            at += chunk.invalid().len();
            start = end_part(readable, start);
        }
    }
    end_part(readable, start);
}

/// Ends the part that begins at `start`, and returns where the next one begins.
fn end_part(readable: &mut Vec<Character>, start: usize) -> usize {
    if readable.len() - start < SHORTEST {
        readable.truncate(start);
    } else if let Some(last) = readable.last() {
        let origin = last.origin.clone();
        readable.push(Character {
            value: '\0',
            origin,
        });
    }
    readable.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::redact::views::visit_views;

    #[test]
    fn bytes_are_decoded_wherever_they_begin_and_their_origin_is_known() {
        for (before, encoded) in [
            ("x", "czNjcmV0L3ZhbHVl"),
            ("token is ", "czNjcmV0\n L3ZhbHVl"),
            ("data", "omzw-g4tf-oqxx-mylm-ovsq"),
            ("", "OMZWG4TFOQXXMYLMOVSQ"),
            ("0", "7333637265742f76616c7565"),
            ("id ", "73:33:63:72:65:74:2f:76:61:6c:75:65"),
            (
                "= ",
                "0x73, 0x33, 0x63, 0x72, 0x65, 0x74, 0x2f, 0x76, 0x61, 0x6c, 0x75, 0x65",
            ),
        ] {
            let text = format!("{before}{encoded}");
            let mut origins = Vec::new();
            visit_views(&text, &mut |view| {
                let found = view.text.find("3cret/valu");
                origins.extend(found.map(|at| view.origin(at..at + 10)));
            });
            let origin = origins.first().unwrap_or_else(|| panic!("{text}"));
            let hidden = &text[origin.clone()];
            assert!(
                encoded.contains(hidden) && hidden.len() + 8 >= encoded.len(),
                "{hidden}"
            );
        }
    }

    #[test]
    fn ordinary_words_are_no_data() {
        let characters: Vec<Character> = "the token is not known to this workspace, ask its owner"
            .char_indices()
            .map(|(at, value)| Character {
                value,
                origin: at..at + 1,
            })
            .collect();
        for decoder in [base64, base32, hexadecimal] {
            assert!(decoder(&characters).is_none());
        }
    }
}
