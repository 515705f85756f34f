//! Regular expressions in the dialect of Flux: Go's RE2 syntax, run by Rust's engine.
//!
//! Some patterns have different meanings in the two dialects, and some are valid only in Go. So
//! each pattern is parsed and translated:
//!
//! | in Go | translation |
//! |---|---|
//! | `\d`, `\w`, `\s` and `\b` are ASCII only | explicit classes, `(?-u:\b)` |
//! | `[a&&b]`, `[[a]`, `[a--b]` are literals | escaped: no set operations or nested classes |
//! | `{`, `a{,3}` and `a{x}` are literals | escaped |
//! | `\Q…\E`, `\012`, `\p{^L}`, `\<` | characters and classes |
//! | `a**`, `(?x)`, `a{1001}` are errors | errors |

use regex::{Regex, RegexBuilder};

/// The maximum size of a compiled pattern. A list of a few hundred patterns stays small.
const MAX_COMPILED_BYTES: usize = 4 << 20;
/// The maximum number of repetitions in Go.
const MAX_REPETITIONS: u32 = 1000;
/// The POSIX classes, which are ASCII only in both dialects.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];
/// An empty class.
const NOTHING: &str = "[^\\x{0}-\\x{10FFFF}]";

/// A list of patterns. A text matches if one of them matches. Invalid patterns are omitted.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Regex>);

impl Patterns {
    /// Compiles a list. Returns the position and the error of each invalid pattern.
    pub fn compile(patterns: &[String]) -> (Self, Vec<(usize, String)>) {
        let mut compiled = Vec::with_capacity(patterns.len());
        let mut invalid = Vec::new();
        for (position, pattern) in patterns.iter().enumerate() {
            match compile(pattern) {
                Ok(regex) => compiled.push(regex),
                Err(message) => invalid.push((position, message)),
            }
        }
        (Self(compiled), invalid)
    }

    /// Whether one of the patterns matches a part of the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(text))
    }
}

/// Compiles a pattern of the Go dialect.
///
/// # Errors
/// A message that completes the sentence "The pattern …".
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
    }
    .translate()?;
    RegexBuilder::new(&translated)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                "is too large; use fewer repetitions or split it into several patterns".to_owned()
            }
            // The last line is the reason. The others show the translated pattern.
            error => format!("is not a valid regular expression: {}", reason(&error)),
        })
}

fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
}

impl Translator<'_> {
    fn translate(mut self) -> Result<String, String> {
        let mut repeated = false;
        while let Some(letter) = self.peek() {
            let repeats = match letter {
                '*' | '+' | '?' => {
                    self.next();
                    self.out.push(letter);
                    true
                }
                '{' => self.counted()?,
                _ => {
                    self.item(letter)?;
                    false
                }
            };
            if repeats {
                if repeated {
                    return Err("has a repeated repetition, which RE2 does not support".to_owned());
                }
                if self.take("?") {
                    self.out.push('?');
                }
            }
            repeated = repeats;
        }
        Ok(self.out)
    }

    /// Translates an item that is neither a repetition nor inside a class.
    fn item(&mut self, letter: char) -> Result<(), String> {
        match letter {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.group(),
            _ => {
                self.next();
                if matches!(letter, '.' | '^' | '$' | '|' | ')') {
                    self.out.push(letter);
                } else {
                    self.literal(letter);
                }
                Ok(())
            }
        }
    }

    /// Translates `{n}`, `{n,}` or `{n,m}`. Any other brace is a literal.
    fn counted(&mut self) -> Result<bool, String> {
        let inner = self.rest[1..].split_once('}').map(|(inner, _)| inner);
        let count = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'));
            (plain && !text.is_empty()).then(|| text.parse::<u32>().unwrap_or(u32::MAX))
        };
        let bounds = inner.and_then(|inner| match inner.split_once(',') {
            None => count(inner).map(|least| (least, least)),
            Some((least, "")) => count(least).map(|least| (least, least)),
            Some((least, most)) => Some((count(least)?, count(most)?)),
        });
        let (Some(inner), Some((least, most))) = (inner, bounds) else {
            self.next();
            self.literal('{');
            return Ok(false);
        };
        if least > most || most > MAX_REPETITIONS {
            return Err(format!(
                "has the invalid repetition {{{inner}}}; use at most {MAX_REPETITIONS}"
            ));
        }
        let whole = &self.rest[..inner.len() + 2];
        self.out.push_str(whole);
        self.rest = &self.rest[whole.len()..];
        Ok(true)
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(letter) = self.rest[1..].chars().next() else {
            return Err("ends in a single backslash".to_owned());
        };
        if letter == 'Q' {
            let (quoted, rest) = self.rest[2..]
                .split_once("\\E")
                .unwrap_or((&self.rest[2..], ""));
            self.rest = rest;
            self.out.push_str(&regex::escape(quoted));
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
    fn perl_class(&mut self) -> Result<Option<String>, String> {
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
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// The code point of an escaped character, including surrogates.
    fn character(&mut self) -> Result<u32, String> {
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

    fn class(&mut self) -> Result<(), String> {
        self.rest = &self.rest[1..];
        let negated = self.take("^");
        let mut ranges = String::new();
        let mut first = true;
        loop {
            let letter = self.peek().ok_or("has a [ without a closing ]")?;
            if letter == ']' && !first {
                self.rest = &self.rest[1..];
                break;
            }
            first = false;
            self.class_item(letter, &mut ranges)?;
        }
        match (ranges.is_empty(), negated) {
            (true, false) => self.out.push_str(NOTHING),
            (true, true) => self.out.push_str("(?s:.)"),
            (false, _) => self
                .out
                .push_str(&format!("[{}{ranges}]", if negated { "^" } else { "" })),
        }
        Ok(())
    }

    fn class_item(&mut self, letter: char, ranges: &mut String) -> Result<(), String> {
        if let Some(named) = self
            .rest
            .strip_prefix("[:")
            .and_then(|named| named.split_once(":]"))
            .map(|(named, _)| named)
        {
            if !POSIX.contains(&named.trim_start_matches('^')) {
                return Err(format!("has the unknown class [:{named}:]"));
            }
            ranges.push_str(&self.rest[..named.len() + 4]);
            self.rest = &self.rest[named.len() + 4..];
            return Ok(());
        }
        if letter == '\\'
            && let Some(class) = self.perl_class()?
        {
            ranges.push_str(&class);
            return Ok(());
        }
        let low = self.class_character()?;
        let ranged =
            self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1;
        let high = if ranged {
            self.rest = &self.rest[1..];
            self.class_character()?
        } else {
            low
        };
        if low > high {
            return Err("has a range in [ ] whose end is before its start".to_owned());
        }
        // Excludes surrogates, which no text contains.
        let (low, high) = (
            if (0xD800..0xE000).contains(&low) {
                0xE000
            } else {
                low
            },
            if (0xD800..0xE000).contains(&high) {
                0xD7FF
            } else {
                high
            },
        );
        if low <= high {
            ranges.push_str(&format!("\\x{{{low:X}}}-\\x{{{high:X}}}"));
        }
        Ok(())
    }

    fn class_character(&mut self) -> Result<u32, String> {
        match self.peek() {
            None => Err("has a [ without a closing ]".to_owned()),
            Some('\\') if self.rest.len() > 1 => self.character(),
            Some('\\') => Err("ends in a single backslash".to_owned()),
            Some(letter) => {
                self.next();
                Ok(u32::from(letter))
            }
        }
    }

    fn group(&mut self) -> Result<(), String> {
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.next();
            self.out.push('(');
            return Ok(());
        };
        if let Some(named) = after.strip_prefix("P<").or_else(|| after.strip_prefix('<')) {
            let (name, rest) = named
                .split_once('>')
                .ok_or("has a group name without a closing >")?;
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                return Err(
                    "has a lookaround or an invalid group name, which RE2 does not support"
                        .to_owned(),
                );
            }
            // In Go, names may start with a digit.
            self.out.push_str(&format!("(?P<_{name}>"));
            self.rest = rest;
            return Ok(());
        }
        let end = after
            .find([':', ')'])
            .ok_or("has a ( without a closing )")?;
        let (flags, rest) = after.split_at(end);
        self.out
            .push_str(&group_flags(flags, rest.starts_with(':'))?);
        self.rest = &rest[1..];
        Ok(())
    }

    fn literal(&mut self, letter: char) {
        self.out
            .push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) {
        self.rest = &self.rest[self.peek().map_or(0, char::len_utf8)..];
    }

    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

/// Translates `(?flags)` or `(?flags:`. Go also accepts repeated flags and no flags.
fn group_flags(flags: &str, opens: bool) -> Result<String, String> {
    let (on, off) = flags
        .split_once('-')
        .map_or((flags, None), |(on, off)| (on, Some(off)));
    let known = |flags: &str| flags.chars().all(|flag| "imsU".contains(flag));
    if !known(on) || off.is_some_and(|off| off.is_empty() || !known(off)) {
        return Err(format!(
            "has (?{flags}, which RE2 does not support; it supports the flags i, m, s and U"
        ));
    }
    let off = off.unwrap_or_default();
    let set: String = "imsU"
        .chars()
        .filter(|flag| on.contains(*flag) && !off.contains(*flag))
        .collect();
    let cleared: String = "imsU".chars().filter(|flag| off.contains(*flag)).collect();
    let dash = if cleared.is_empty() { "" } else { "-" };
    Ok(match (opens, set.is_empty() && cleared.is_empty()) {
        (true, _) => format!("(?{set}{dash}{cleared}:"),
        (false, true) => "(?:)".to_owned(),
        (false, false) => format!("(?{set}{dash}{cleared})"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_has_the_same_meaning_as_in_go() {
        for (pattern, text, expected) in [
            ("\\d+", "٣", false),
            ("^\\w+$", "größe", false),
            ("\\bприв", "a прив", false),
            ("b\\sc", "b\u{a0}c", false),
            ("\\p{L}+", "привет", true),
            ("\\P{^L}", "é", true),
            ("(?i)GRÖSSE", "größse", false),
            ("(?i)äpfel", "ÄPFEL", true),
            ("(?i)k", "\u{212a}", true),
            ("line1.line2", "line1\nline2", false),
            ("(?s)line1.line2", "line1\nline2", true),
            ("line1$", "line1\n", false),
            ("[a-c&&b]", "&", true),
            ("[a-c&&b]", "a", true),
            ("[[]", "[", true),
            ("[a-z--b]", "-", true),
            ("[[=a=]]", "=]", true),
            ("a{,3}", "a{,3}", true),
            ("a{,3}", "aaa", false),
            ("{x}", "{x}", true),
            ("]", "]", true),
            ("\\Q[info]\\E+", "[info]]", true),
            ("\\012", "a\nb", true),
            ("\\<foo\\>", "<foo>", true),
            ("\\b{start}", "x{start}", true),
            ("(?P<1n>a)", "a", true),
            ("(?ii)A", "a", true),
            ("(?)a", "a", true),
            ("\\x{D800}", "\u{fffd}", false),
            ("[\\x{D800}-\\x{E000}]", "\u{e000}", true),
            ("[^\\d\\D]", "a", false),
            ("^+a", "a", true),
        ] {
            assert_eq!(
                compile(pattern).unwrap().is_match(text),
                expected,
                "{pattern} {text:?}"
            );
        }
    }

    #[test]
    fn a_pattern_that_go_rejects_is_rejected() {
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?<=a)b",
            "(?>a)",
            "(a)\\1",
            "\\8",
            "a**",
            "a{2}+",
            "a{1001}",
            "[a-\\d]",
            "[^]",
            "[a",
            "*a",
            "a)",
            "(?x)a",
            "(?u)a",
            "(?i-)a",
            "\\Z",
            "\\p{Nonsense}",
            "[[:foo:]]",
            "[[:ALPHA:]]",
            "\\",
            "a\\",
            "\\u0041",
            "(?P<n-a>a)",
            "\\x{110000}",
            "\\xZZ",
            "(?i",
            "[b-a]",
            "[\\Q]",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_omitted_and_reported() {
        let (patterns, invalid) = Patterns::compile(&["(?!a)".to_owned(), "b".to_owned()]);
        assert!(patterns.is_match("abc") && !patterns.is_match("a"));
        assert_eq!(
            invalid
                .iter()
                .map(|(position, _)| *position)
                .collect::<Vec<_>>(),
            [0]
        );
        assert!(!Patterns::compile(&["(".to_owned()]).0.is_match("("));
    }

    #[test]
    fn a_pattern_that_would_use_too_much_memory_is_rejected() {
        assert!(
            compile("(\\pL{1000}){1000}")
                .unwrap_err()
                .contains("too large")
        );
    }

    proptest! {
        #[test]
        fn no_pattern_causes_a_panic(pattern in "[\\\\\\[\\](){}?*+^$|.,:PpQxdw0-9a-zé&~-]{0,20}") {
            let _ = compile(&pattern);
        }

        #[test]
        fn a_quoted_text_matches(text in "[^\\\\]{0,20}") {
            let quoted = format!("^\\Q{text}\\E$");
            prop_assert!(compile(&quoted).unwrap().is_match(&text));
        }
    }
}
