//! Where rules come from, and how their namespaces say it.
//!
//! The hub's own rules have plain namespaces. Rules of another source have qualified ones:
//! `prod-eu:apps` is the namespace `apps` of the cluster `prod-eu`. So equal names in two clusters
//! are different objects wherever a namespace is part of an id, a subject or a key, and those of
//! the hub stay as they were. Neither a namespace of Kubernetes nor a name of a cluster has a
//! colon.

/// The qualifier of a folder beside a cluster. No cluster that rules are read from has this name.
pub const FOLDER: &str = "folder";
/// What separates the qualifier from the namespace.
const SEPARATOR: char = ':';
/// The longest name of a cluster, as of an object in Kubernetes.
pub const MAX_CLUSTER_NAME: usize = 253;

/// The namespace of a source, qualified with the name of the source.
pub fn qualified(origin: &str, namespace: &str) -> String {
    format!("{origin}{SEPARATOR}{namespace}")
}

/// The qualifier, if there is one, and the namespace as the source has it.
pub fn split(namespace: &str) -> (Option<&str>, &str) {
    match namespace.split_once(SEPARATOR) {
        Some((origin, plain)) => (Some(origin), plain),
        None => (None, namespace),
    }
}

/// The namespace as its source has it.
pub fn plain(namespace: &str) -> &str {
    split(namespace).1
}

/// The namespace as the source `origin` has it; `None` if it is one of another source.
pub fn plain_of<'a>(origin: Option<&str>, namespace: &'a str) -> Option<&'a str> {
    let (actual, plain) = split(namespace);
    (actual == origin).then_some(plain)
}

/// Whether the text can be the name of a cluster: up to [`MAX_CLUSTER_NAME`] letters, digits, `.`,
/// `_` and `-`, starting with a letter or digit.
pub fn is_cluster_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= MAX_CLUSTER_NAME
        && name.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qualified_namespace_is_none_of_another_source() {
        let member = qualified("prod-eu", "apps");
        assert_eq!(member, "prod-eu:apps");
        assert_eq!(split(&member), (Some("prod-eu"), "apps"));
        assert_eq!((plain(&member), plain("apps")), ("apps", "apps"));
        for (origin, namespace, expected) in [
            (Some("prod-eu"), "prod-eu:apps", Some("apps")),
            (Some("prod-eu"), "prod-us:apps", None),
            (Some("prod-eu"), "apps", None),
            (None, "prod-eu:apps", None),
            (None, "apps", Some("apps")),
        ] {
            assert_eq!(
                plain_of(origin, namespace),
                expected,
                "{origin:?} {namespace}"
            );
        }
    }

    #[test]
    fn the_name_of_a_cluster_cannot_contain_the_separator() {
        for name in ["prod-eu", "a.b_c", "1"] {
            assert!(is_cluster_name(name), "{name}");
        }
        for name in ["", "-a", "a:b", "a/b", "a b", "é"] {
            assert!(!is_cluster_name(name), "{name}");
        }
    }
}
