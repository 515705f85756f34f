//! A kind of object as it is written in settings.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A kind of object: `Pod`, `Deployment.apps`, `v1/Pod` or `apps/v1/Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKind {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version to read. `None` means the version in the event, or the one that the API server
    /// prefers.
    pub version: Option<String>,
    /// The kind.
    pub kind: String,
}

/// A text is not a kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", ObjectKind::EXPECTED)]
pub struct InvalidKind;

impl ObjectKind {
    /// The expected form, for error messages.
    pub const EXPECTED: &str =
        "a kind with its group, such as Deployment.apps, apps/v1/Deployment or Pod";
}

impl FromStr for ObjectKind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        let (group, version, kind) = match *text.split('/').collect::<Vec<_>>() {
            [group, version, kind] => (group, Some(version), kind),
            [version, kind] => ("", Some(version), kind),
            _ => text
                .split_once('.')
                .map_or(("", None, text), |(kind, group)| (group, None, kind)),
        };
        let is_label = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        let is_kind = kind.starts_with(|first: char| first.is_ascii_uppercase())
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_version =
            version.is_none_or(|version| version.starts_with('v') && version.bytes().all(is_label));
        let has_group = !group.is_empty() || text.matches('/').count() < 2 && !text.contains('.');
        if !is_kind || !is_version || !has_group || !group.bytes().all(is_label) {
            return Err(InvalidKind);
        }
        Ok(Self {
            group: group.to_owned(),
            version: version.map(str::to_owned),
            kind: kind.to_owned(),
        })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.group.as_str(), &self.version) {
            ("", None) => formatter.write_str(&self.kind),
            ("", Some(version)) => write!(formatter, "{version}/{}", self.kind),
            (group, None) => write!(formatter, "{}.{group}", self.kind),
            (group, Some(version)) => write!(formatter, "{group}/{version}/{}", self.kind),
        }
    }
}

impl Serialize for ObjectKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_with_its_group_and_version() {
        for (text, group, version, kind) in [
            ("Pod", "", None, "Pod"),
            ("v1/Pod", "", Some("v1"), "Pod"),
            ("Deployment.apps", "apps", None, "Deployment"),
            ("apps/v1/Deployment", "apps", Some("v1"), "Deployment"),
            (
                "HelmRelease.helm.toolkit.fluxcd.io",
                "helm.toolkit.fluxcd.io",
                None,
                "HelmRelease",
            ),
        ] {
            let read: ObjectKind = text.parse().unwrap();
            assert_eq!(
                (
                    read.group.as_str(),
                    read.version.as_deref(),
                    read.kind.as_str()
                ),
                (group, version, kind),
                "{text}"
            );
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_is_not_a_kind_is_rejected() {
        for text in [
            "",
            "pods",
            "pod",
            "Deployment.",
            "/v1/Pod",
            "apps/Deployment",
            "a/v1/b/C",
            "Pod.Apps",
            "apps/v1/",
            "Po d",
        ] {
            assert_eq!(text.parse::<ObjectKind>(), Err(InvalidKind), "{text}");
        }
    }
}
