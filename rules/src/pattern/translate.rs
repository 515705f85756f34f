//! Translates a pattern of Go's dialect to that of Rust's engine.

mod class;
mod escape;
mod group;

use super::repetition::Repetitions;

/// The maximum number of repetitions in Go.
const MAX_REPETITIONS: u32 = 1000;
/// The longest pattern. The memory and time of its syntax tree grow with it.
const MAX_PATTERN_BYTES: usize = 32 << 10;

/// A translated pattern.
#[derive(Debug)]
pub(super) struct Translated {
    /// The pattern in Rust's dialect.
    pub text: String,
    /// How many characters of classes the compiler enumerates.
    pub class_characters: u64,
}

/// Translates a pattern.
///
/// # Errors
/// A message that completes the sentence "The pattern …".
pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "has {} bytes; use at most {MAX_PATTERN_BYTES}, or split it into several patterns",
            pattern.len()
        ));
    }
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        repetitions: Repetitions::default(),
        classes: class::Sizes::default(),
    };
    translator.translate()?;
    Ok(Translated {
        text: translator.out,
        class_characters: translator.classes.enumerated(),
    })
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    repetitions: Repetitions,
    classes: class::Sizes,
}

impl Translator<'_> {
    fn translate(&mut self) -> Result<(), String> {
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
                    self.repetitions.note(letter);
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
        Ok(())
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
        let Some((inner, least, most)) = bounds(&self.rest[1..]) else {
            self.repetitions.note('{');
            self.next();
            self.literal('{');
            return Ok(false);
        };
        if most.is_some_and(|most| least > most) || least.max(most.unwrap_or(0)) > MAX_REPETITIONS {
            return Err(format!(
                "has the invalid repetition {{{inner}}}; use at most {MAX_REPETITIONS}"
            ));
        }
        if !self.repetitions.repeat(most.unwrap_or(least.max(1))) {
            return Err(format!(
                "repeats a part more than {MAX_REPETITIONS} times, counted over nested \
                 repetitions, at {{{inner}}}; use smaller counts"
            ));
        }
        let whole = &self.rest[..inner.len() + 2];
        self.out.push_str(whole);
        self.rest = &self.rest[whole.len()..];
        Ok(true)
    }

    fn literal(&mut self, letter: char) {
        if "\\.+*?()|[]{}^$#&-~".contains(letter) {
            self.out.push('\\');
        }
        self.out.push(letter);
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

/// The text and the bounds of a repetition that starts after its opening brace; the upper bound is
/// `None` if it is open.
fn bounds(rest: &str) -> Option<(&str, u32, Option<u32>)> {
    let is_inner = |letter: char| letter.is_ascii_digit() || letter == ',';
    let (inner, after) = rest.split_at(rest.find(|letter| !is_inner(letter))?);
    if !after.starts_with('}') {
        return None;
    }
    let (least, most) = match inner.split_once(',') {
        None => (count(inner)?, Some(count(inner)?)),
        Some((least, "")) => (count(least)?, None),
        Some((least, most)) => (count(least)?, Some(count(most)?)),
    };
    Some((inner, least, most))
}

/// A count without leading zeros.
fn count(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    (is_plain && !digits.is_empty()).then(|| digits.parse::<u32>().unwrap_or(u32::MAX))
}
