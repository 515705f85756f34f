//! The commit that an event is about.

use std::collections::BTreeMap;

use tidings_core::{Failure, Reason};

/// The commit in the combined metadata. As in Flux, the first of `commit`, `originRevision` and
/// `revision` that is present decides.
///
/// # Errors
/// Permanent: no key is present, or its value holds no commit.
pub fn commit(metadata: &BTreeMap<String, String>) -> Result<&str, Failure> {
    let revision = ["commit", "originRevision", "revision"]
        .into_iter()
        .find_map(|key| Some((key, metadata.get(key)?)));
    let Some((key, revision)) = revision else {
        let missing = "the event names no commit: its metadata has none of commit, originRevision \
                       and revision";
        return Err(Failure::permanent(Reason::Misconfigured, missing));
    };
    commit_of(revision).ok_or_else(|| {
        let detail = format!(
            "the event names no commit: its metadata {key} is {revision:?}, which does not end in \
             40 hexadecimal digits"
        );
        Failure::permanent(Reason::Misconfigured, detail)
    })
}

/// The commit of a revision: `main@sha1:HASH`, `main/HASH` or `HASH`, with 40 hexadecimal digits.
fn commit_of(revision: &str) -> Option<&str> {
    let tail = match revision.rsplit_once(':') {
        Some((_, tail)) => tail,
        None => revision.rsplit('/').next().unwrap_or_default(),
    };
    (tail.len() == 40 && tail.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";

    #[test]
    fn the_commit_follows_the_last_colon_or_the_last_slash() {
        for prefix in [
            "",
            "sha1:",
            "main@sha1:",
            "main/",
            "refs/heads/a/b@sha1:",
            "a:b:",
            "main@sha256:",
        ] {
            assert_eq!(
                commit_of(&format!("{prefix}{HASH}")),
                Some(HASH),
                "{prefix}"
            );
        }
        for revision in [
            "",
            "6.5.4",
            "main@8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
            &"z".repeat(40),
            &"a".repeat(64),
        ] {
            assert_eq!(commit_of(revision), None, "{revision}");
        }
        assert_eq!(commit_of(&format!("{HASH}/main")), None);
        assert_eq!(commit_of(&format!("main@sha1:{HASH}:x")), None);
    }

    #[test]
    fn the_first_key_that_is_present_decides_even_if_empty() {
        let metadata = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect()
        };
        let revision = (
            "revision",
            "main@sha1:0000000000000000000000000000000000000000",
        );
        assert_eq!(
            commit(&metadata(&[("commit", HASH), revision])).ok(),
            Some(HASH)
        );
        assert_eq!(
            commit(&metadata(&[("originRevision", HASH), revision])).ok(),
            Some(HASH)
        );
        assert!(commit(&metadata(&[("originRevision", ""), revision])).is_err());
        assert!(
            commit(&metadata(&[]))
                .unwrap_err()
                .detail
                .contains("none of commit, originRevision and revision")
        );
    }
}
