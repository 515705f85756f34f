//! Finds secrets of which a service masks the middle: `S3cr****9zQw`.

use std::collections::HashSet;
use std::ops::Range;

use super::windows::WINDOW;

/// The characters of a secret before and after a mask that are redacted, counted together.
const FEWEST_SHOWN: usize = WINDOW;
/// The most secrets whose ends are kept, the shortest first.
const MOST_SECRETS: usize = 4096;

/// The beginnings and ends of secrets, of up to 8 bytes.
#[derive(Default)]
pub struct Masks {
    beginnings: HashSet<Vec<u8>>,
    ends: HashSet<Vec<u8>>,
}

impl Masks {
    /// Keeps the ends of the secrets.
    pub fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut masks = Self::default();
        for secret in secrets.take(MOST_SECRETS).map(str::as_bytes) {
            for length in 1..=WINDOW.min(secret.len()) {
                masks.beginnings.insert(secret[..length].to_vec());
                masks.ends.insert(secret[secret.len() - length..].to_vec());
            }
        }
        masks
    }

    /// Finds secrets of which only the middle is masked, each with its mask.
    pub fn find(&self, text: &str, mut found: impl FnMut(Range<usize>)) {
        let bytes = text.as_bytes();
        let mut start = 0;
        while start < bytes.len() {
            let length = mask_length(&text.as_bytes()[start..]);
            if length == 0 {
                start += 1;
                continue;
            }
            let end = start + length;
            let before = (1..=WINDOW.min(start)).rev();
            let before = before.map(|length| &bytes[start - length..start]);
            let before = before
                .into_iter()
                .find(|part| self.beginnings.contains(*part));
            let after = (1..=WINDOW.min(bytes.len() - end)).rev();
            let after = after.map(|length| &bytes[end..end + length]);
            let after = after.into_iter().find(|part| self.ends.contains(*part));
            if let (Some(before), Some(after)) = (before, after)
                && before.len() + after.len() >= FEWEST_SHOWN
            {
                found(start - before.len()..end + after.len());
            }
            start = end;
        }
    }
}

/// The length of the mask at the beginning: at least two equal signs, or one ellipsis.
fn mask_length(text: &[u8]) -> usize {
    if text.starts_with("…".as_bytes()) {
        return "…".len();
    }
    let signs = ["*", ".", "x", "#", "-", "_", "•", "●", "█", "?"];
    let length = |sign: &&str| {
        let repeated = text.chunks(sign.len());
        let count = repeated
            .take_while(|chunk| *chunk == sign.as_bytes())
            .count();
        (count >= 2).then_some(count * sign.len())
    };
    signs.iter().find_map(length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_around_a_mask_count_together() {
        let masks = Masks::of(["s3cr3t-value-x9zq"].into_iter());
        for (text, expected) in [
            ("key s3cr****x9zq", Some("s3cr****x9zq")),
            ("key s3cr3t…zq.", Some("s3cr3t…zq")),
            ("key s3cr...x9zq", Some("s3cr...x9zq")),
            ("key s3c****9zq", None),
            ("key s3cr*x9zq", None),
            ("****", None),
        ] {
            let mut found = None;
            masks.find(text, |part| found = Some(&text[part]));
            assert_eq!(found, expected, "{text}");
        }
    }
}
