//! Field names, compared as Go's decoder does: upper and lower case are equal.

/// Whether a key stands for this field.
pub(super) fn is_field(key: &str, name: &str) -> bool {
    let mut letters = name.chars();
    let all_equal = key.chars().all(|character| {
        letters
            .next()
            .is_some_and(|letter| folded(character) == folded(letter))
    });
    all_equal && letters.next().is_none()
}

/// The long s and the Kelvin sign are the only characters outside of ASCII that are equal to an
/// ASCII letter.
fn folded(character: char) -> char {
    match character {
        'ſ' => 'S',
        '\u{212a}' => 'K',
        other => other.to_ascii_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_field;

    #[test]
    fn case_does_not_matter() {
        for (key, name, expected) in [
            ("message", "message", true),
            ("MeSSage", "message", true),
            ("meſſage", "message", true),
            ("\u{212a}ind", "kind", true),
            ("messages", "message", false),
            ("messag", "message", false),
            ("", "message", false),
            ("mëssage", "message", false),
        ] {
            assert_eq!(is_field(key, name), expected, "{key} {name}");
        }
    }
}
