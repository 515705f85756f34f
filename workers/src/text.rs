//! Text for people: words, and cuts at the limits of the services.

/// What stands where text was cut off.
pub const ELLIPSIS: char = '…';

/// A reason in words: `HTTPGet2Failed` becomes `http get 2 failed`.
///
/// Words end where lower case, upper case, digits and everything else meet; the last capital of a run belongs to the
/// word of small letters that follows it.
pub fn words(reason: &str) -> String {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Lower,
        Upper,
        Digit,
        Other,
    }
    let class = |letter: char| match letter {
        _ if letter.is_lowercase() => Class::Lower,
        _ if letter.is_uppercase() => Class::Upper,
        _ if letter.is_numeric() => Class::Digit,
        _ => Class::Other,
    };
    let mut runs: Vec<(Class, String)> = Vec::new();
    for letter in reason.chars() {
        match runs.last_mut() {
            Some((last, run)) if *last == class(letter) => run.push(letter),
            Some((Class::Upper, run)) if class(letter) == Class::Lower => {
                let capital = run.pop().unwrap_or_default();
                if run.is_empty() {
                    runs.pop();
                }
                runs.push((Class::Lower, format!("{capital}{letter}")));
            }
            _ => runs.push((class(letter), letter.to_string())),
        }
    }
    let words: Vec<String> = runs.into_iter().map(|(_, run)| run).collect();
    words.join(" ").to_lowercase()
}

/// At most `limit` characters; a cut text ends in an ellipsis.
pub fn cut_chars(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain([ELLIPSIS]).collect()
}

/// At most `limit` bytes, cut between characters; a cut text ends in an ellipsis.
pub fn cut_bytes(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// At most `limit` units of UTF-16, as some services count, cut between characters; a cut text ends in an ellipsis.
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
}
