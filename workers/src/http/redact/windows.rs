//! Finds every part that a text and a secret have in common, wherever it begins and ends.

use std::collections::HashMap;
use std::ops::Range;

/// The length in bytes of the shortest common part that is found.
pub const WINDOW: usize = 8;
/// The most windows that are kept, of all secrets together. Each takes about 30 bytes of memory.
const MOST_WINDOWS: usize = 64 << 10;

/// A secret whose parts are searched for.
pub struct Pattern {
    /// The secret as texts are compared.
    pub text: String,
    /// The parts of it that texts may show, such as the name of a host.
    pub visible: Vec<Range<usize>>,
}

/// The windows of 8 bytes of secrets, and where they are.
///
/// All of them are kept for secrets of up to half of [`MOST_WINDOWS`] bytes together. Of larger
/// ones each n-th window is kept, so that the shortest part that is surely found is longer.
#[derive(Default)]
pub struct Windows {
    texts: Vec<String>,
    at: HashMap<u64, (usize, usize)>,
}

impl Windows {
    /// Indexes the secrets, which are ordered from the shortest to the longest.
    pub fn of(patterns: Vec<Pattern>) -> Self {
        let mut windows = Self::default();
        let mut left: usize = patterns.iter().map(|pattern| pattern.text.len()).sum();
        let mut dense = MOST_WINDOWS / 2;
        let mut stride = 1;
        for pattern in patterns {
            let length = pattern.text.len();
            if stride == 1 {
                match dense.checked_sub(length) {
                    Some(rest) => dense = rest,
                    None => stride = left.div_ceil(MOST_WINDOWS / 2),
                }
            }
            left -= length;
            windows.add(pattern, stride);
        }
        windows
    }

    fn add(&mut self, pattern: Pattern, stride: usize) {
        let Pattern { text, visible } = pattern;
        let mut visible = visible.into_iter().peekable();
        for (at, window) in text.as_bytes().windows(WINDOW).enumerate().step_by(stride) {
            while visible.next_if(|part| part.end <= at).is_some() {}
            let is_secret = visible.peek().is_none_or(|part| at + WINDOW <= part.start);
            if let Some(key) = key(window).filter(|_| is_secret) {
                self.at.entry(key).or_insert((self.texts.len(), at));
            }
        }
        self.texts.push(text);
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Finds the parts of a text that are parts of secrets, in order. They may overlap.
    pub fn find(&self, text: &str, mut found: impl FnMut(Range<usize>)) {
        let bytes = text.as_bytes();
        let (mut at, mut last_end) = (0, 0);
        while let Some(window) = bytes.get(at..at + WINDOW) {
            let known = key(window).and_then(|key| self.at.get(&key));
            let Some(&(secret, position)) = known else {
                at += 1;
                continue;
            };
            let (before, after) = self.texts[secret].as_bytes().split_at(position);
            // What was found before is not compared again, so that the cost stays linear.
            let earlier = bytes[last_end.min(at)..at].iter().rev();
            let start = at - common(earlier, before.iter().rev());
            let end = at + common(bytes[at..].iter(), after.iter());
            found(start..end);
            last_end = end;
            at = (at + 1).max(end + 1 - WINDOW);
        }
    }
}

/// How many items two sequences have in common at their beginning.
fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// The bytes of a window as one number. Windows are equal if their numbers are.
fn key(window: &[u8]) -> Option<u64> {
    window.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[(&str, &[Range<usize>])], text: &str) -> Vec<String> {
        let patterns = patterns.iter().map(|(text, visible)| Pattern {
            text: (*text).to_owned(),
            visible: visible.to_vec(),
        });
        let mut found = Vec::new();
        let windows = Windows::of(patterns.collect());
        windows.find(text, |part| found.push(text[part].to_owned()));
        found
    }

    #[test]
    fn a_common_part_is_found_in_its_whole_length() {
        let secret: (&str, &[_]) = ("0123456789abcdef", &[]);
        assert_eq!(found(&[secret], "x23456789ax"), ["23456789a"]);
        assert_eq!(
            found(&[secret], "89abcdef 01234567"),
            ["89abcdef", "01234567"]
        );
        assert!(found(&[secret], "0123456 9abcdef").is_empty());
    }

    #[test]
    fn a_visible_part_is_not_searched_for() {
        let secret: (&str, &[_]) = ("hooks.example.com/s3cret/s3cret", &[0..17]);
        assert!(found(&[secret], "no hooks.example.com").is_empty());
        assert_eq!(found(&[secret], "no /s3cret/s"), ["/s3cret/s"]);
    }

    #[test]
    fn of_large_secrets_longer_parts_are_found_in_bounded_memory() {
        let large: String = (0..200_000).map(|number| format!("{number}-")).collect();
        let windows = Windows::of(vec![
            Pattern {
                text: "the small secret".into(),
                visible: Vec::new(),
            },
            Pattern {
                text: large.clone(),
                visible: Vec::new(),
            },
        ]);
        assert!(windows.at.len() <= MOST_WINDOWS);
        let part = &large[500_001..500_100];
        let mut parts = Vec::new();
        windows.find(&format!("??{part}?? small secret"), |part| parts.push(part));
        assert_eq!(parts, [2..101, 103..116]);
    }

    #[test]
    fn repetitions_are_found_in_linear_time() {
        let secret = "a".repeat(30_000);
        let text = "a".repeat(60_000);
        let mut end = 0;
        let windows = Windows::of(vec![Pattern {
            text: secret,
            visible: Vec::new(),
        }]);
        windows.find(&text, |part| end = part.end);
        assert_eq!(end, text.len());
    }
}
