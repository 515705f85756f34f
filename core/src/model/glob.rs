//! Globs: patterns of names with `*` and `?`.

/// A list of globs. A name matches if one of them matches the whole name.
#[derive(Clone, Debug)]
pub struct Globs(Vec<String>);

impl Globs {
    /// A list of globs: `*` matches any text, `?` one character, and other characters match
    /// themselves.
    pub fn new(globs: &[String]) -> Self {
        Self(globs.to_vec())
    }

    /// Whether one of the globs matches the name.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.iter().any(|glob| is_match(glob, name))
    }
}

/// Takes at most the product of the lengths. If the rest of the glob does not match, only the last
/// `*` can take one more character: an earlier one could not match more.
fn is_match(glob: &str, name: &str) -> bool {
    let (mut glob, mut name) = (glob.chars(), name.chars());
    let mut last_star = None;
    loop {
        let rest_of_name = name.clone();
        match (glob.next(), name.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                last_star = Some((glob.clone(), rest_of_name.clone()));
                name = rest_of_name;
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(expected), Some(found)) if expected == found => continue,
            _ => {}
        }
        let Some((after_star, taken_from)) = &mut last_star else {
            return false;
        };
        if taken_from.next().is_none() {
            return false;
        }
        (glob, name) = (after_star.clone(), taken_from.clone());
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
            ("", "", true),
            ("", "a", false),
            ("eu-?", "eu-12", false),
            ("eu-?", "eu-", false),
            ("eu.1", "eux1", false),
            ("a\\*", "a\\b", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("*ab", "aab", true),
            ("a**", "a", true),
            ("?é", "éé", true),
        ] {
            assert_eq!(
                Globs::new(&[glob.to_owned()]).is_match(name),
                expected,
                "{glob} {name}"
            );
        }
    }

    #[test]
    fn many_stars_take_little_time_and_memory() {
        let glob = "*a".repeat(30_000) + "b";
        let name = "a".repeat(253);
        assert!(!Globs::new(&vec![glob; 100]).is_match(&name));
    }
}
