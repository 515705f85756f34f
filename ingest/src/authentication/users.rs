//! Which users may send events.

use tidings_core::model::glob::Globs;

/// Globs of user names. None: every user.
#[derive(Clone, Debug)]
pub struct Users(Option<Globs>);

impl Users {
    /// From the setting `ingest.auth.token_review.users`.
    pub fn new(patterns: &[String]) -> Self {
        Self((!patterns.is_empty()).then(|| Globs::new(patterns)))
    }

    /// Whether a user may send events.
    pub(super) fn include(&self, user: &str) -> bool {
        self.0.as_ref().is_none_or(|globs| globs.is_match(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_matched_by_globs() {
        let flux = "system:serviceaccount:flux-system:kustomize-controller";
        for (pattern, is_match) in [
            (flux, true),
            ("system:serviceaccount:flux-system:*", true),
            ("system:*:flux-system:*-controller", true),
            (
                "system:serviceaccount:flux-system:????????????????????",
                true,
            ),
            ("system:serviceaccount:flux-system:?", false),
            ("", false),
            ("serviceaccount:*", false),
            ("*:flux-system", false),
        ] {
            let users = Users::new(&[pattern.to_owned()]);
            assert_eq!(users.include(flux), is_match, "{pattern}");
        }
    }

    #[test]
    fn without_patterns_every_user_may_send() {
        assert!(Users::new(&[]).include("anyone"));
        let users = Users::new(&["a".to_owned(), "b*".to_owned()]);
        assert!(users.include("a") && users.include("bc") && !users.include("ab"));
    }
}
