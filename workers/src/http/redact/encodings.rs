//! Texts without their encodings, so that a secret is found in any of them: escapes of JSON and of
//! HTML, percent-encoding, forms, upper case, and other white space.

use std::ops::Range;

/// The most encodings around each other that are removed.
const MOST_LAYERS: usize = 3;
/// The names of HTML entities for characters that an encoder escapes.
const ENTITIES: [(&str, char); 8] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
    ("equals", '='),
    ("plus", '+'),
];
/// The longest entity, without `&` and `;`.
const LONGEST_ENTITY: usize = 8;

/// A decoded text. It knows the bytes of the original that each of its bytes stands for.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    /// In lower case, with one space for each white space and each `+`.
    pub text: String,
    /// For each byte of `text`, the bytes of the original.
    origins: Vec<Range<usize>>,
}

impl Decoded {
    /// The text without spaces, as services break long lines.
    pub fn without_spaces(&self) -> Self {
        let kept = self.text.bytes().zip(&self.origins);
        let kept = kept.filter(|(byte, _)| *byte != b' ');
        let (bytes, origins) = kept.map(|(byte, origin)| (byte, origin.clone())).unzip();
        Self {
            // Without a character of one byte the text stays valid.
            text: String::from_utf8(bytes).unwrap_or_default(),
            origins,
        }
    }

    /// The bytes of the original that a part of the decoded text stands for.
    pub fn origin(&self, part: Range<usize>) -> Range<usize> {
        let last = part.end.saturating_sub(1);
        match (self.origins.get(part.start), self.origins.get(last)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }
}

/// The text with none of its encodings removed, with one, and so on.
pub fn layers(text: &str) -> Vec<Decoded> {
    let mut characters: Vec<Character> = text
        .char_indices()
        .map(|(start, value)| Character {
            value,
            origin: start..start + value.len_utf8(),
        })
        .collect();
    let mut layers = vec![folded(&characters)];
    for _ in 0..MOST_LAYERS {
        let decoded = decode(&characters);
        if decoded.len() == characters.len() {
            break;
        }
        layers.push(folded(&decoded));
        characters = decoded;
    }
    layers
}

/// A character, and the bytes of the original that it stands for.
#[derive(Clone)]
struct Character {
    value: char,
    origin: Range<usize>,
}

/// The characters in lower case, with one space for each white space.
fn folded(characters: &[Character]) -> Decoded {
    let mut decoded = Decoded::default();
    for Character { value, origin } in characters {
        if value.is_whitespace() || *value == '+' {
            if decoded.text.ends_with(' ') {
                continue;
            }
            decoded.text.push(' ');
        } else {
            decoded.text.extend(value.to_lowercase());
        }
        decoded.origins.resize(decoded.text.len(), origin.clone());
    }
    decoded
}

/// Removes one layer of escapes.
fn decode(characters: &[Character]) -> Vec<Character> {
    let mut decoded = Vec::with_capacity(characters.len());
    let mut rest = characters;
    while let Some(first) = rest.first() {
        let found = match first.value {
            '\\' => backslash(rest),
            '&' => entity(rest),
            '%' => percent(rest),
            _ => None,
        };
        let (value, length) = found.unwrap_or((first.value, 1));
        let end = rest[length - 1].origin.end;
        decoded.push(Character {
            value,
            origin: first.origin.start..end,
        });
        rest = &rest[length..];
    }
    decoded
}

/// An escape of JSON, also as other languages write it (`\x2f`).
fn backslash(rest: &[Character]) -> Option<(char, usize)> {
    match rest.get(1)?.value {
        'u' => {
            let unit = hexadecimal(rest.get(2..6)?)?;
            let Some(low) = rest.get(6..12).and_then(low_surrogate) else {
                return Some((char::from_u32(unit)?, 6));
            };
            let is_high = (0xd800..0xdc00).contains(&unit);
            let joined = || 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            match is_high {
                true => Some((char::from_u32(joined())?, 12)),
                false => Some((char::from_u32(unit)?, 6)),
            }
        }
        'x' => Some((char::from_u32(hexadecimal(rest.get(2..4)?)?)?, 4)),
        'n' | 'r' | 't' => Some((' ', 2)),
        same @ ('/' | '"' | '\'' | '\\') => Some((same, 2)),
        _ => None,
    }
}

fn low_surrogate(escape: &[Character]) -> Option<u32> {
    let is_escape = escape[0].value == '\\' && escape[1].value == 'u';
    let unit = hexadecimal(&escape[2..]).filter(|_| is_escape)?;
    (0xdc00..0xe000).contains(&unit).then_some(unit)
}

/// An entity of HTML: by name, or by a decimal or hexadecimal number.
fn entity(rest: &[Character]) -> Option<(char, usize)> {
    let window = rest.get(1..)?;
    let end = window
        .iter()
        .take(LONGEST_ENTITY + 1)
        .position(|character| character.value == ';')?;
    let name: String = window[..end].iter().map(|entry| entry.value).collect();
    let value = match name.strip_prefix('#') {
        Some(number) => char::from_u32(match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        })?,
        None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((value, end + 2))
}

/// One percent-encoded character, of one or several bytes. Bytes that are no UTF-8 stand for
/// themselves.
fn percent(rest: &[Character]) -> Option<(char, usize)> {
    let byte = |at: usize| {
        let escape = rest.get(3 * at..3 * at + 3)?;
        let value = hexadecimal(&escape[1..]).filter(|_| escape[0].value == '%')?;
        u8::try_from(value).ok()
    };
    let first = byte(0)?;
    let length = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    let bytes: Option<Vec<u8>> = (0..length).map(byte).collect();
    let whole = bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.chars().next());
    Some(whole.map_or((char::from(first), 3), |whole| (whole, 3 * length)))
}

fn hexadecimal(digits: &[Character]) -> Option<u32> {
    let mut value = 0;
    for digit in digits {
        value = value * 16 + digit.value.to_digit(16)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_of_encodings_is_removed_and_its_origin_is_known() {
        for encoded in [
            r"a\/\u0026é",
            "A&#x2f;&amp;É",
            "a%2F%26%C3%A9",
            r"a\x2f&#38;\u00e9",
            "a%252f%2526%25c3%25a9",
            r"a\\u002f\\u0026\\u00e9",
        ] {
            let text = format!("<{encoded}>");
            let found = layers(&text).into_iter().find_map(|layer| {
                let start = layer.text.find("a/&é")?;
                Some(layer.origin(start..start + "a/&é".len()))
            });
            let origin = found.unwrap_or_else(|| panic!("{encoded}: {:?}", layers(&text)));
            assert_eq!(&text[origin], encoded);
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in [
            r"\",
            r"\u12",
            r"\ud800x",
            "&amp",
            "&nothing;",
            "%2",
            "%zz",
            "100%",
            "&;",
        ] {
            assert_eq!(
                layers(text).last().unwrap().text,
                text.to_lowercase(),
                "{text}"
            );
        }
    }

    #[test]
    fn white_space_of_any_form_is_one_space() {
        assert_eq!(layers("a+ \n b%20%0Ac\\nd").last().unwrap().text, "a b c d");
    }
}
