//! Escapes: characters, quoted texts, and classes such as `\d` and `\pL`.

use super::Translator;
use super::class::NOTHING;

impl Translator<'_> {
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let Some(letter) = self.rest[1..].chars().next() else {
            return Err("ends in a single backslash".to_owned());
        };
        if letter == 'Q' {
            let (quoted, rest) = self.rest[2..]
                .split_once("\\E")
                .unwrap_or((&self.rest[2..], ""));
            self.rest = rest;
            quoted.chars().for_each(|letter| self.literal(letter));
            return Ok(());
        }
        if matches!(letter, 'b' | 'B' | 'A' | 'z') {
            self.rest = &self.rest[2..];
            self.out.push_str(match letter {
                'b' => "(?-u:\\b)",
                'B' => "(?-u:\\B)",
                'A' => "\\A",
                _ => "\\z",
            });
            return Ok(());
        }
        if let Some(class) = self.perl_class()? {
            self.out.push_str(&class);
            return Ok(());
        }
        match char::from_u32(self.character()?) {
            Some(letter) => self.literal(letter),
            // A surrogate, which no text contains.
            None => self.out.push_str(NOTHING),
        }
        Ok(())
    }

    /// `\d`, `\W`, `\pL`, `\P{^Greek}` …
    pub(super) fn perl_class(&mut self) -> Result<Option<String>, String> {
        let letter = self.rest[1..].chars().next().unwrap_or_default();
        let explicit = match letter {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => "[\\t\\n\\x0C\\r ]",
            'S' => "[^\\t\\n\\x0C\\r ]",
            'p' | 'P' => return self.unicode_class(letter == 'P').map(Some),
            _ => return Ok(None),
        };
        self.rest = &self.rest[2..];
        Ok(Some(explicit.to_owned()))
    }

    fn unicode_class(&mut self, negated: bool) -> Result<String, String> {
        let after = &self.rest[2..];
        let (name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced
                .split_once('}')
                .ok_or("has \\p{ without a closing brace")?,
            None => after.split_at(after.chars().next().map_or(0, char::len_utf8)),
        };
        let (name, negated) = name
            .strip_prefix('^')
            .map_or((name, negated), |name| (name, !negated));
        if name.is_empty()
            || !name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | ' '))
        {
            return Err(format!("has the unknown Unicode class {name:?}"));
        }
        self.rest = rest;
        self.classes.add_unicode();
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// The code point of an escaped character, including surrogates.
    pub(super) fn character(&mut self) -> Result<u32, String> {
        let mut letters = self.rest[1..].chars();
        let letter = letters.next().unwrap_or_default();
        let after = letters.as_str();
        let simple = match letter {
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => Some(letter),
            _ => None,
        };
        let octal = |text: &str| {
            text.bytes()
                .take_while(|byte| (b'0'..=b'7').contains(byte))
                .count()
        };
        let (digits, radix, length) = match letter {
            _ if simple.is_some() => ("", 0, 2),
            'x' => match after
                .strip_prefix('{')
                .and_then(|braced| braced.split_once('}'))
            {
                Some((digits, _)) => (digits, 16, 4 + digits.len()),
                None => (after.get(..2).unwrap_or_default(), 16, 4),
            },
            '0' => (
                &self.rest[1..2 + octal(after).min(2)],
                8,
                2 + octal(after).min(2),
            ),
            // A single digit would be a backreference.
            '1'..='7' if octal(after) > 0 => (
                &self.rest[1..2 + octal(after).min(2)],
                8,
                2 + octal(after).min(2),
            ),
            _ => ("", 1, 2),
        };
        let code = match (simple, radix) {
            (Some(letter), _) => Some(u32::from(letter)),
            (None, 1) => None,
            (None, radix) => u32::from_str_radix(digits, radix)
                .ok()
                .filter(|code| *code <= 0x10_FFFF && !digits.starts_with('+')),
        };
        let code = code.ok_or_else(|| format!("has \\{letter}, which RE2 does not support"))?;
        self.rest = &self.rest[length..];
        Ok(code)
    }
}
