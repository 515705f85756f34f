//! Text for people: words, and cuts at the limits of the services.

use std::sync::LazyLock;

use regex::Regex;

/// What stands where text was cut off.
pub const ELLIPSIS: char = '…';

/// A reason in words: `HTTPGet2Failed` becomes `http get 2 failed`.
///
/// Renderer end where lower case, upper case, digits and everything else meet; the last capital of a
/// run belongs to the word of small letters that follows it.
pub fn words(reason: &str) -> String {
    // By Unicode category, as Go has it: to Rust's own predicates a Roman numeral is a capital.
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

/// At most `limit` characters; a cut text ends in an ellipsis.
pub fn cut_chars(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars()
        .take(limit.saturating_sub(1))
        .chain([ELLIPSIS])
        .collect()
}

/// At most `limit` bytes, cut between characters; a cut text ends in an ellipsis.
pub fn cut_bytes(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// At most `limit` units of UTF-16, as some services count, cut between characters; a cut text ends
/// in an ellipsis.
pub fn cut_utf16(text: &str, limit: usize) -> String {
    if text.encode_utf16().count() <= limit {
        return text.to_owned();
    }
    let mut left = limit.saturating_sub(1);
    let fits = |letter: &char| {
        let fits = letter.len_utf16() <= left;
        left = left.saturating_sub(letter.len_utf16());
        fits
    };
    text.chars().take_while(fits).chain([ELLIPSIS]).collect()
}

/// A cut text without the half of an entity (`&amp;`, `&lt;`, `&gt;`) that the cut may have left
/// before the ellipsis.
pub fn without_half_entity(mut text: String) -> String {
    let Some(rest) = text.strip_suffix(ELLIPSIS) else {
        return text;
    };
    if let Some(begin) = rest.rfind('&')
        && ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|entity| entity.starts_with(&rest[begin..]) && rest.len() - begin < entity.len())
    {
        text.truncate(begin);
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
    fn no_half_of_an_entity_is_left() {
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
