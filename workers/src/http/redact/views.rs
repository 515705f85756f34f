//! A text without its encodings, so that a secret is found in any of them.
//!
//! ```text
//!  text ─► escapes, quoted-printable, base64, base32, hexadecimal ─► each of them again, and so on
//! ```

use std::ops::Range;

use super::escapes::{quoted_printable, without_escapes};
use super::radix::{base32, base64, hexadecimal};

/// The most encodings around each other that are removed.
const MOST_PASSES: usize = 4;
/// The most escapes around each other that are removed from a secret.
const MOST_LAYERS: usize = 3;
/// The most characters that are decoded, for each character of the text. Ordinary texts need less
/// than 8.
const MOST_WORK: usize = 32;
/// What removes one encoding. It returns nothing if the text does not have this encoding.
type Decoder = fn(&[Character]) -> Option<Vec<Character>>;
/// All encodings that are removed.
const DECODERS: [Decoder; 5] = [
    without_escapes,
    quoted_printable,
    base64,
    base32,
    hexadecimal,
];

/// A character, and the bytes of the original that it stands for.
#[derive(Clone, Debug)]
pub struct Character {
    /// The character.
    pub value: char,
    /// The bytes of the original.
    pub origin: Range<usize>,
}

/// A text as it is compared. It knows the bytes of the original that each of its bytes stands for.
#[derive(Debug, Default, PartialEq)]
pub struct Folded {
    /// In lower case, with one space for each white space and each `+`.
    pub text: String,
    /// For each byte of `text`, the bytes of the original.
    origins: Vec<Range<usize>>,
}

impl Folded {
    fn of(characters: &[Character]) -> Self {
        let mut folded = Self::default();
        for Character { value, origin } in characters {
            if fold(*value, &mut folded.text) {
                folded.origins.resize(folded.text.len(), origin.clone());
            }
        }
        folded
    }

    /// Only the letters and digits. Quotes, backslashes and line breaks within a secret do not
    /// matter then.
    pub fn compact(&self) -> Self {
        let mut compact = Self::default();
        for (at, value) in self.text.char_indices() {
            // A NUL separates parts that are not next to each other in the original.
            if value.is_alphanumeric() || value == '\0' {
                compact.text.push(value);
                let origin = self.origins[at].clone();
                compact.origins.resize(compact.text.len(), origin);
            }
        }
        compact
    }

    /// The bytes of the original that a part of the text stands for.
    pub fn origin(&self, part: Range<usize>) -> Range<usize> {
        let last = part.end.saturating_sub(1);
        match (self.origins.get(part.start), self.origins.get(last)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }
}

/// Appends a character as it is compared, and says whether it appended anything.
fn fold(value: char, text: &mut String) -> bool {
    if value.is_whitespace() || value == '+' {
        let is_first = !text.ends_with(' ');
        if is_first {
            text.push(' ');
        }
        return is_first;
    }
    text.extend(value.to_lowercase());
    true
}

/// A text as it is compared.
pub fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for value in text.chars() {
        fold(value, &mut folded);
    }
    folded
}

/// Visits the text as it is, and without each encoding that it may have. Returns whether it could
/// remove all of them within the bounds of work.
pub fn visit_views(text: &str, visit: &mut dyn FnMut(&Folded)) -> bool {
    let mut left = MOST_WORK * (text.len() + 64);
    descend(&characters(text), MOST_PASSES, &mut left, visit)
}

fn descend(
    characters: &[Character],
    passes: usize,
    left: &mut usize,
    visit: &mut dyn FnMut(&Folded),
) -> bool {
    visit(&Folded::of(characters));
    if passes == 0 {
        return true;
    }
    let mut decoded = DECODERS.iter().filter_map(|decoder| decoder(characters));
    decoded.all(|decoded| match left.checked_sub(decoded.len()) {
        Some(rest) => {
            *left = rest;
            descend(&decoded, passes - 1, left, visit)
        }
        None => false,
    })
}

/// A secret as it is compared, with its own escapes, without them, and so on.
pub fn layers(text: &str) -> Vec<Folded> {
    let mut characters = characters(text);
    let mut layers = vec![Folded::of(&characters)];
    while layers.len() <= MOST_LAYERS
        && let Some(decoded) = without_escapes(&characters)
    {
        layers.push(Folded::of(&decoded));
        characters = decoded;
    }
    layers
}

fn characters(text: &str) -> Vec<Character> {
    let characters = text.char_indices().map(|(start, value)| Character {
        value,
        origin: start..start + value.len_utf8(),
    });
    characters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_encodings_are_removed_within_the_bounds_of_work() {
        let text = "a%252Fb";
        let mut views = Vec::new();
        assert!(visit_views(text, &mut |view| views.push(view.text.clone())));
        assert_eq!(views, ["a%252fb", "a%2fb", "a/b"]);
        let mut left = text.len();
        assert!(!descend(
            &characters(text),
            MOST_PASSES,
            &mut left,
            &mut |_| {}
        ));
    }
}
