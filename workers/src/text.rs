//! Texts for people: words, and cuts at the size limits of services.

use std::sync::LazyLock;

use regex::Regex;
use tidings_core::model::id::digest;
pub use tidings_core::model::text::{ELLIPSIS, cut_bytes};

/// A reason in words: `HTTPGet2Failed` becomes `http get 2 failed`.
///
/// A word ends where lower case, upper case, digits and other characters meet. The last capital of
/// a run starts the lower-case word after it.
pub fn words(reason: &str) -> String {
    // By Unicode category, as in Go. Rust's predicates treat a Roman numeral as a capital.
    static RUNS: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"(?<small>\p{Ll}+)|(?<capitals>\p{Lu}+)|\p{Nd}+|[^\p{Ll}\p{Lu}\p{Nd}]+";
        Regex::new(pattern).expect("the pattern is valid")
    });
    let mut words: Vec<String> = Vec::new();
    let mut after_capitals = false;
    for run in RUNS.captures_iter(reason) {
        let joins = after_capitals && run.name("small").is_some();
        let capital = words.last_mut().filter(|_| joins).and_then(String::pop);
        words.push(capital.into_iter().chain(run[0].chars()).collect());
        after_capitals = run.name("capitals").is_some();
    }
    words.retain(|word| !word.is_empty());
    words.join(" ").to_lowercase()
}

/// Cuts a text to `limit` characters, the last of which is an ellipsis.
pub fn cut_chars(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars()
        .take(limit.saturating_sub(1))
        .chain([ELLIPSIS])
        .collect()
}

/// Cuts a text to `limit` UTF-16 code units, as some services count, including an ellipsis.
pub fn cut_utf16(text: &str, limit: usize) -> String {
    if text.encode_utf16().count() <= limit {
        return text.to_owned();
    }
    let mut left = limit.saturating_sub(1);
    let fits = |character: &char| {
        let fits = character.len_utf16() <= left;
        left = left.saturating_sub(character.len_utf16());
        fits
    };
    text.chars().take_while(fits).chain([ELLIPSIS]).collect()
}

/// Cuts an id to `limit` characters. The end of a cut id is a hash of the whole, so that ids stay
/// distinct. `limit` is at least 20.
pub fn cut_id(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let hash = &digest(&[text])[..16];
    let beginning: String = text.chars().take(limit - hash.len() - 1).collect();
    format!("{beginning}-{hash}")
}

/// Removes an incomplete entity (`&amp;`, `&lt;`, `&gt;`) before the ellipsis of a cut text.
pub fn without_half_entity(mut text: String) -> String {
    let Some(rest) = text.strip_suffix(ELLIPSIS) else {
        return text;
    };
    if let Some(start) = rest.rfind('&')
        && ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|entity| entity.starts_with(&rest[start..]) && rest.len() - start < entity.len())
    {
        text.truncate(start);
        text.push(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_split_into_words() {
        for (reason, expected) in [
            ("ReconciliationSucceeded", "reconciliation succeeded"),
            ("HTTPGet2Failed", "http get 2 failed"),
            ("Progressing", "progressing"),
            ("", ""),
            ("ABC", "abc"),
            ("aB", "a b"),
            ("IIⅣx", "ii ⅳ x"),
            ("snake_case", "snake _ case"),
        ] {
            assert_eq!(words(reason), expected);
        }
    }

    #[test]
    fn a_cut_is_between_characters_and_within_the_limit() {
        assert_eq!(cut_chars("äöü", 3), "äöü");
        assert_eq!(cut_chars("äöüß", 3), "äö…");
        assert_eq!(cut_bytes("äöüß", 6), "ä…");
        assert_eq!(cut_utf16("🚀🚀", 3), "🚀…");
        assert_eq!(cut_utf16("🚀🚀", 4), "🚀🚀");
    }

    #[test]
    fn ids_that_are_cut_stay_distinct() {
        assert_eq!(cut_id("äöü/name", 20), "äöü/name");
        let (first, second) = ("ä".repeat(300), format!("{}b", "ä".repeat(299)));
        let [first, second] = [first, second].map(|id| cut_id(&id, 100));
        assert_ne!(first, second);
        for id in [first, second] {
            assert_eq!(id.chars().count(), 100);
            assert!(id.starts_with("äää"), "{id}");
        }
    }

    #[test]
    fn no_part_of_an_entity_is_left() {
        for (cut, whole) in [
            ("a &am…", "a …"),
            ("a &…", "a …"),
            ("&lt;&gt…", "&lt;…"),
            ("&amp;…", "&amp;…"),
            ("AT&T…", "AT&T…"),
            ("&am", "&am"),
        ] {
            assert_eq!(without_half_entity(cut.to_owned()), whole);
        }
    }
}
