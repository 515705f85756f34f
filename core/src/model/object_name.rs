//! Names of Kubernetes objects, checked as the API server does. Names in events come from anyone,
//! so they are checked before they are looked up.

use crate::ObjectReference;

/// The maximum length of a name, in bytes (Kubernetes: Object Names and IDs).
pub const MAX_NAME: usize = 253;
/// The maximum length of a namespace, in bytes (RFC 1123).
const MAX_LABEL: usize = 63;

/// Whether an object of a common kind can have this name: a DNS-1123 subdomain.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_NAME && name.split('.').all(is_label_of_any_length)
}

/// Whether a namespace or a version can have this name: a DNS-1123 label.
pub fn is_label(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_label_of_any_length(name)
}

/// Whether an object of any kind can have this name: a segment of a path. Roles, for example, may
/// have colons in theirs.
pub fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.contains(['/', '%'])
}

/// Whether an object with this name and namespace can exist.
pub fn can_exist(object: &ObjectReference) -> bool {
    is_path_segment(&object.name) && (object.namespace.is_empty() || is_label(&object.namespace))
}

fn is_label_of_any_length(label: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [label.bytes().next(), label.bytes().last()];
    ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
        && label
            .bytes()
            .all(|byte| is_alphanumeric(byte) || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_api_server_does() {
        for (name, subdomain, label, segment) in [
            ("apps", true, true, true),
            ("a-1.b", true, false, true),
            ("system:node", false, false, true),
            ("Apps", false, false, true),
            ("-a", false, false, true),
            ("a..b", false, false, true),
            ("x?watch=true", false, false, true),
            ("../secrets", false, false, false),
            ("..", false, false, false),
            ("a%2fb", false, false, false),
            ("", false, false, false),
        ] {
            let found = (is_subdomain(name), is_label(name), is_path_segment(name));
            assert_eq!(found, (subdomain, label, segment), "{name}");
        }
        for (length, expected) in [
            (63, (true, true, true)),
            (64, (true, false, true)),
            (253, (true, false, true)),
            (254, (false, false, false)),
        ] {
            let name = "a".repeat(length);
            let found = (is_subdomain(&name), is_label(&name), is_path_segment(&name));
            assert_eq!(found, expected, "{length}");
        }
    }
}
