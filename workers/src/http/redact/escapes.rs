//! Escapes of characters: of JSON and other languages, of HTML, percent-encoding and
//! quoted-printable. An escape that was cut off belongs to the character before it.

use super::views::Character;

/// The names of HTML entities for characters that an encoder escapes.
const ENTITIES: [(&str, char); 14] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
    ("bsol", '\\'),
    ("equals", '='),
    ("plus", '+'),
    ("num", '#'),
    ("percnt", '%'),
    ("dollar", '$'),
    ("colon", ':'),
    ("commat", '@'),
];
/// How many of them browsers also know without `;`.
const WITHOUT_SEMICOLON: usize = 4;
/// The longest entity, without `&` and `;`: a number with leading zeros.
const LONGEST_ENTITY: usize = 10;
/// The most hexadecimal digits between braces.
const LONGEST_CODE: usize = 8;

/// Removes one layer of escapes. Returns nothing if there is none.
pub fn without_escapes(characters: &[Character]) -> Option<Vec<Character>> {
    decode(characters, |rest| match rest[0].value {
        '\\' => backslash(rest),
        '&' => entity(rest),
        '%' => unicode_percent(rest).or_else(|| byte_escape('%', rest)),
        '"' | '\'' => doubled(rest),
        _ => None,
    })
}

/// Removes one layer of quoted-printable. Returns nothing if there is none.
pub fn quoted_printable(characters: &[Character]) -> Option<Vec<Character>> {
    decode(characters, |rest| match rest[0].value {
        '=' => byte_escape('=', rest),
        _ => None,
    })
}

/// What an escape stands for, and how many characters it has.
type Escape = Option<(char, usize)>;

fn decode(
    characters: &[Character],
    escape: impl Fn(&[Character]) -> Escape,
) -> Option<Vec<Character>> {
    let mut decoded: Vec<Character> = Vec::with_capacity(characters.len());
    let mut rest = characters;
    let (mut has_escapes, mut follows_escape) = (false, false);
    while let Some(first) = rest.first() {
        let cut = cut_escape(rest, follows_escape);
        if let (Some(length), Some(last)) = (cut, decoded.last_mut()) {
            last.origin.end = rest[length - 1].origin.end;
            rest = &rest[length..];
            has_escapes = true;
            continue;
        }
        let found = escape(rest);
        follows_escape = found.is_some();
        has_escapes |= follows_escape;
        let (value, length) = found.unwrap_or((first.value, 1));
        let end = rest[length - 1].origin.end;
        decoded.push(Character {
            value,
            origin: first.origin.start..end,
        });
        rest = &rest[length..];
    }
    has_escapes.then_some(decoded)
}

/// The length of an escape that was cut off: at the end, or before what marks a cut.
///
/// A lone `=` is one only after another escape, as many texts have it before a quote.
fn cut_escape(rest: &[Character], follows_escape: bool) -> Option<usize> {
    let at = |index: usize| rest.get(index).map(|character| character.value);
    let hex: fn(char) -> bool = |value| value.is_ascii_hexdigit();
    let octal: fn(char) -> bool = |value| value.is_digit(8);
    let entity: fn(char) -> bool = |value| value == '#' || value.is_ascii_alphanumeric();
    // The characters before the digits, the fewest and most digits, and what is a digit.
    let (prefix, fewest, whole, is_digit) = match (rest[0].value, at(1)) {
        ('%', Some('u')) => (2, 0, 4, hex),
        ('%', _) => (1, 0, 2, hex),
        ('=', _) => (1, usize::from(!follows_escape), 2, hex),
        ('\\', Some('u' | 'x')) if at(2) == Some('{') => (3, 0, LONGEST_CODE + 1, hex),
        ('\\', Some('u')) => (2, 0, 4, hex),
        ('\\', Some('U')) => (2, 0, 8, hex),
        ('\\', Some('x')) => (2, 0, 2, hex),
        ('\\', _) => (1, 0, 3, octal),
        ('&', _) => (1, 0, LONGEST_ENTITY + 1, entity),
        _ => return None,
    };
    let digits = rest[prefix..].iter().take(whole);
    let digits = digits.take_while(|digit| is_digit(digit.value)).count();
    let end = prefix + digits;
    let is_braced = prefix == 3 && at(end) == Some('}');
    let is_cut = digits >= fewest && digits < whole && at(end).is_none_or(marks_a_cut);
    (is_cut && !is_braced).then_some(end)
}

/// Whether a text was probably cut before this character.
fn marks_a_cut(value: char) -> bool {
    let is_mark = matches!(
        value,
        '…' | '.' | '"' | '\'' | '*' | '<' | ')' | ']' | '}' | ','
    );
    is_mark || value.is_whitespace()
}

/// An escape with a backslash, as in JSON and other languages.
fn backslash(rest: &[Character]) -> Escape {
    let next = rest.get(1)?.value;
    let is_braced = rest.get(2).is_some_and(|third| third.value == '{');
    match next {
        'u' | 'x' if is_braced => braced(rest),
        'u' => utf16(rest),
        'U' => Some((char::from_u32(hexadecimal(rest.get(2..10)?)?)?, 10)),
        'x' => utf8(rest, |rest| {
            let is_escape = rest.get(1)?.value == 'x' && rest[0].value == '\\';
            let value = hexadecimal(rest.get(2..4)?).filter(|_| is_escape)?;
            Some((u8::try_from(value).ok()?, 4))
        }),
        '0'..='7' => utf8(rest, octal),
        'n' | 'r' | 't' => Some((' ', 2)),
        same if !same.is_alphanumeric() => Some((same, 2)),
        _ => None,
    }
}

/// `\u{26}` and `\x{26}`.
fn braced(rest: &[Character]) -> Escape {
    let mut digits = rest[3..].iter().take(LONGEST_CODE + 1);
    let length = digits.position(|digit| digit.value == '}')?;
    let value = hexadecimal(&rest[3..3 + length])?;
    Some((char::from_u32(value)?, length + 4))
}

/// `\u0026`, or two of them for one character.
fn utf16(rest: &[Character]) -> Escape {
    let unit = hexadecimal(rest.get(2..6)?)?;
    match rest.get(6..12).and_then(low_surrogate) {
        Some(low) if (0xd800..0xdc00).contains(&unit) => {
            let joined = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            Some((char::from_u32(joined)?, 12))
        }
        _ => Some((char::from_u32(unit)?, 6)),
    }
}

fn low_surrogate(escape: &[Character]) -> Option<u32> {
    let is_escape = escape[0].value == '\\' && escape[1].value == 'u';
    let unit = hexadecimal(&escape[2..]).filter(|_| is_escape)?;
    (0xdc00..0xe000).contains(&unit).then_some(unit)
}

/// One byte as `\46` or `\046`.
fn octal(rest: &[Character]) -> Option<(u8, usize)> {
    let digits = rest.get(1..)?.iter().take(3);
    let digits = digits.map_while(|digit| digit.value.to_digit(8));
    let (value, length) = digits.fold((0, 0), |(value, length), digit| {
        (value * 8 + digit, length + 1)
    });
    let is_escape = rest[0].value == '\\' && length >= 2;
    let value = u8::try_from(value).ok().filter(|_| is_escape)?;
    Some((value, length + 1))
}

/// An entity of HTML: by name, or by a decimal or hexadecimal number.
fn entity(rest: &[Character]) -> Escape {
    let tail = rest[1..].iter().take(LONGEST_ENTITY + 1);
    let name: String = tail.map(|entry| entry.value.to_ascii_lowercase()).collect();
    let Some((name, _)) = name.split_once(';') else {
        return open_entity(&name);
    };
    let value = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        }
        .and_then(char::from_u32),
        None => ENTITIES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value),
    };
    value
        .map(|value| (value, name.chars().count() + 2))
        .or_else(|| open_entity(name))
}

/// An entity without `;`. Of a number only as many digits are read as an ASCII character has, as
/// the digits after it may be those of the text.
fn open_entity(tail: &str) -> Escape {
    let Some(number) = tail.strip_prefix('#') else {
        let known = ENTITIES[..WITHOUT_SEMICOLON].iter();
        let mut known = known.filter(|(name, _)| tail.starts_with(name));
        return known.next().map(|(name, value)| (*value, name.len() + 1));
    };
    let (digits, radix, prefix) = match number.strip_prefix('x') {
        Some(digits) => (digits.get(..2)?, 16, 3),
        None if number.starts_with('1') => (number.get(..3)?, 10, 2),
        None => (number.get(..2)?, 10, 2),
    };
    let value = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    Some((value, prefix + digits.len()))
}

/// A quote that is written twice, as in CSV and SQL.
fn doubled(rest: &[Character]) -> Escape {
    let quote = rest[0].value;
    (rest.get(1)?.value == quote).then_some((quote, 2))
}

/// `%u0026`, as old JavaScript writes it.
fn unicode_percent(rest: &[Character]) -> Escape {
    let is_escape = rest.get(1)?.value == 'u';
    let value = hexadecimal(rest.get(2..6)?).filter(|_| is_escape)?;
    Some((char::from_u32(value)?, 6))
}

/// One character as `%26` or `=26`, of one or several bytes.
fn byte_escape(lead: char, rest: &[Character]) -> Escape {
    utf8(rest, |rest| {
        let escape = rest.get(..3)?;
        let value = hexadecimal(&escape[1..]).filter(|_| escape[0].value == lead)?;
        Some((u8::try_from(value).ok()?, 3))
    })
}

/// One character of one or several escaped bytes. Bytes that are no UTF-8 stand for themselves.
fn utf8(rest: &[Character], byte: impl Fn(&[Character]) -> Option<(u8, usize)>) -> Escape {
    let (first, length) = byte(rest)?;
    let count = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    let (mut bytes, mut end) = (vec![first], length);
    while bytes.len() < count
        && let Some((next, length)) = rest
            .get(end..)
            .filter(|rest| !rest.is_empty())
            .and_then(&byte)
    {
        bytes.push(next);
        end += length;
    }
    let whole = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.chars().next());
    Some(whole.map_or((char::from(first), length), |whole| (whole, end)))
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
    use super::super::views::layers;

    #[test]
    fn each_layer_of_encodings_is_removed_and_its_origin_is_known() {
        for encoded in [
            r"a\/\u0026é",
            "A&#x2f;&amp;É",
            "a%2F%26%C3%A9",
            r"a\x2f&#38;\u00e9",
            "a%252f%2526%25c3%25a9",
            r"a\\u002f\\u0026\\u00e9",
            r"a/\&é",
            "a/&AMP;é",
            "a&#47&#x26é",
            "a/&ampé",
            "a%u002f%u0026%u00E9",
            r"a\u{2f}\x{26}\u{e9}",
            r"a\U0000002f\U00000026\U000000E9",
            r"a\57\046\303\251",
            r"a\x2f&\xc3\xa9",
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
            "&nothing;",
            "%2",
            "%zz",
            "100%x",
            "&;",
            r"C:\Windows",
        ] {
            assert_eq!(
                layers(text).last().unwrap().text,
                text.to_lowercase(),
                "{text}"
            );
        }
    }

    #[test]
    fn an_escape_that_was_cut_belongs_to_the_character_before_it() {
        for cut in [
            "%",
            "%7",
            "%u002",
            r"\",
            r"\u",
            r"\u00",
            r"\u{2",
            r"\U0000002",
            r"\x",
            r"\04",
            "&",
            "&#",
            "&#x5",
            "&#3",
            "&am",
            "&amp",
        ] {
            for mark in ["", "…", "...", "\"}", " "] {
                let text = format!("a%2Fb{cut}{mark}");
                let last = layers(&text).pop().unwrap();
                let origin = last.origin(0..3);
                assert!(last.text.starts_with("a/b"), "{text}: {last:?}");
                assert_eq!(&text[origin], format!("a%2Fb{cut}"), "{text}");
            }
        }
    }

    #[test]
    fn white_space_of_any_form_is_one_space() {
        assert_eq!(layers("a+ \n b%20%0Ac\\nd").last().unwrap().text, "a b c d");
    }
}
