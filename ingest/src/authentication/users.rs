//! Which users may send events.

/// Patterns of user names, in which `*` stands for any text. None: every user.
#[derive(Clone, Debug, Default)]
pub struct Users(Vec<String>);

impl Users {
    /// From the setting `ingest.auth.token_review.users`.
    pub fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether a user may send events.
    pub(super) fn include(&self, user: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, user))
    }
}

/// Whether a pattern matches the whole text. Takes the leftmost place for each part, which is
/// enough without a pattern for single characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let flux = "system:serviceaccount:flux-system:kustomize-controller";
        for (pattern, is_match) in [
            (flux, true),
            ("*", true),
            ("system:serviceaccount:flux-system:*", true),
            ("*:kustomize-controller", true),
            ("system:*:flux-system:*-controller", true),
            ("**", true),
            ("", false),
            ("system:serviceaccount:flux:*", false),
            ("system:serviceaccount:flux-system:", false),
            ("serviceaccount:*", false),
            ("*:flux-system", false),
            ("system:*:serviceaccount:*", false),
        ] {
            assert_eq!(matches(pattern, flux), is_match, "{pattern}");
        }
        assert!(!matches("aa*aa", "aaa") && matches("aa*aa", "aaaa"));
    }

    #[test]
    fn without_patterns_every_user_may_send() {
        assert!(Users::default().include("anyone"));
        let users = Users::new(vec!["a".to_owned(), "b*".to_owned()]);
        assert!(users.include("a") && users.include("bc") && !users.include("ab"));
    }
}
