//! Who a token belongs to, as the Kubernetes API says.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The most bytes of a user whose groups are kept. Directories of companies give some hundred
/// groups.
const MAX_BYTES: usize = 16 << 10;
/// The longest name in logs.
const MAX_NAME_CHARACTERS: usize = 300;

/// The user of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Such as `system:serviceaccount:flux-system:kustomize-controller`.
    pub name: String,
    /// An id, if the API knows one.
    pub uid: Option<String>,
    /// The groups of the user.
    pub groups: Vec<String>,
    /// What the API's authenticator added.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The name, as logs show it.
    pub fn shown(&self) -> Arc<str> {
        let name = self.name.chars().take(MAX_NAME_CHARACTERS);
        Arc::from(name.collect::<String>())
    }

    /// The same user, without what is not needed to name it.
    pub(super) fn name_only(&self) -> Self {
        Self {
            name: self.shown().to_string(),
            ..Self::default()
        }
    }

    /// Whether all of it can be kept in memory.
    pub(super) fn is_small(&self) -> bool {
        let extra = self.extra.iter().flat_map(|(key, values)| {
            let values = values.iter().map(String::len);
            values.chain([key.len()])
        });
        let texts = self.groups.iter().map(String::len).chain(extra);
        let uid = self.uid.as_ref().map_or(0, String::len);
        // Each text has a header of its own in memory.
        let bytes: usize = texts.map(|length| length + size_of::<String>()).sum();
        bytes + self.name.len() + uid <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_very_many_groups_is_not_kept() {
        let user = |groups: usize| User {
            name: "ann".to_owned(),
            groups: (0..groups)
                .map(|number| format!("group-{number}"))
                .collect(),
            ..User::default()
        };
        assert!(user(200).is_small());
        assert!(!user(1000).is_small());
        let extra = BTreeMap::from([("key".to_owned(), vec!["x".repeat(MAX_BYTES)])]);
        assert!(!User { extra, ..user(1) }.is_small());
        assert_eq!(user(1000).name_only().name, "ann");
        assert!(user(1000).name_only().is_small());
    }
}
