//! Classes in brackets. Go knows no set operations and no nested classes.

use super::Translator;

/// The POSIX classes, which are ASCII only in both dialects.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];
/// An empty class.
pub(super) const NOTHING: &str = "[^\\x{0}-\\x{10FFFF}]";

/// How many characters a class such as `\pL` has at most.
const UNICODE_CHARACTERS: u64 = 150_000;
/// How many ranges it has at most, rounded up.
const UNICODE_RANGES: u64 = 1_000;

/// The sizes of the classes of a pattern. To ignore case, the compiler enumerates the characters of
/// each range; otherwise it copies the ranges.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    characters: u64,
    ranges: u64,
    ignores_case: bool,
}

impl Sizes {
    pub(super) fn add_unicode(&mut self) {
        self.characters += UNICODE_CHARACTERS;
        self.ranges += UNICODE_RANGES;
    }

    pub(super) fn add_range(&mut self, low: u32, high: u32) {
        self.characters += u64::from(high - low) + 1;
        self.ranges += 1;
    }

    /// A part of the pattern ignores case. It counts for the whole pattern.
    pub(super) fn ignore_case(&mut self) {
        self.ignores_case = true;
    }

    /// How many characters or ranges the compiler enumerates.
    pub(super) fn enumerated(&self) -> u64 {
        if self.ignores_case {
            self.characters
        } else {
            self.ranges
        }
    }
}

impl Translator<'_> {
    pub(super) fn class(&mut self) -> Result<(), String> {
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
            self.classes.add_range(low, high);
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
}
