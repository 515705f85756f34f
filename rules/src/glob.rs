//! Globs: patterns of names with `*` and `?`.

use regex::Regex;

/// A list of globs. A name matches if one of them matches the whole name.
#[derive(Clone, Debug)]
pub struct Globs(Vec<Regex>);

impl Globs {
    /// Compiles globs: `*` matches any text, `?` one character, and other characters match
    /// themselves.
    pub fn new(globs: &[String]) -> Self {
        let pattern = |glob: &String| {
            let escaped = regex::escape(glob).replace("\\*", ".*").replace("\\?", ".");
            Regex::new(&format!("(?s)^{escaped}$")).ok()
        };
        Self(globs.iter().filter_map(pattern).collect())
    }

    /// Whether one of the globs matches the name.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_whole_names() {
        for (glob, name, expected) in [
            ("eu-*", "eu-1", true),
            ("eu-*", "xeu-1", false),
            ("*", "", true),
            ("eu-?", "eu-12", false),
            ("eu.1", "eux1", false),
            ("a\\*", "a\\b", true),
        ] {
            assert_eq!(
                Globs::new(&[glob.to_owned()]).is_match(name),
                expected,
                "{glob} {name}"
            );
        }
    }
}
