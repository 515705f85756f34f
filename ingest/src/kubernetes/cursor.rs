//! The cursor: how far the Events of a cluster are processed, and where to resume. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The annotation of the Lease that holds the cursor.
const ANNOTATION: &str = "tidings/events-cursor";

/// All Events up to this position are stored on the bus or filtered out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// The resource version, a growing number in every API server.
    pub resource_version: u64,
    /// When the API server stored the latest of these Events, by its own clock.
    pub time: Option<Timestamp>,
}

/// Where to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Watch from this resource version.
    After(u64),
    /// Resource versions decreased, as after a restore of etcd, so the cursor's version is of no
    /// use. List Events, and process those stored at this time or later; without a time, all of
    /// them.
    Since(Option<Timestamp>),
}

impl Cursor {
    /// The cursor in the annotations of a Lease, unless it is missing or invalid.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(annotations.get(ANNOTATION)?).ok()
    }

    /// The cursor as annotations for a Lease.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        // Serializing numbers and times cannot fail.
        BTreeMap::from([(
            ANNOTATION.to_owned(),
            serde_json::to_string(self).unwrap_or_default(),
        )])
    }

    /// Where to resume, given the API server's current resource version.
    pub fn start(&self, current: u64) -> Start {
        if self.resource_version <= current {
            Start::After(self.resource_version)
        } else {
            Start::Since(self.time)
        }
    }

    /// The cursor at another resource version. Its time never decreases.
    pub fn advance(self, resource_version: u64, time: Option<Timestamp>) -> Self {
        Self {
            resource_version,
            time: self.time.max(time),
        }
    }
}

impl Start {
    /// Whether an Event of a list must still be processed.
    pub fn includes(&self, resource_version: u64, stored_at: Option<Timestamp>) -> bool {
        match self {
            Self::After(version) => resource_version > *version,
            Self::Since(since) => {
                since.is_none_or(|since| stored_at.is_none_or(|stored_at| stored_at >= since))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_cursor_is_stored_as_an_annotation() {
        let cursor = Cursor {
            resource_version: u64::MAX,
            time: Some(time(1_767_323_045)),
        };
        let annotations = cursor.annotations();
        let text = r#"{"resourceVersion":18446744073709551615,"time":"2026-01-02T03:04:05Z"}"#;
        assert_eq!(annotations["tidings/events-cursor"], text);
        assert_eq!(Cursor::read(&annotations), Some(cursor));
        for text in ["", "{}", "1"] {
            assert_eq!(
                Cursor::read(&BTreeMap::from([(ANNOTATION.to_owned(), text.to_owned())])),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn events_are_listed_by_time_if_resource_versions_decreased() {
        let cursor = Cursor {
            resource_version: 10,
            time: Some(time(7)),
        };
        assert_eq!(cursor.start(10), Start::After(10));
        assert_eq!(cursor.start(11), Start::After(10));
        assert_eq!(cursor.start(9), Start::Since(Some(time(7))));
    }

    #[test]
    fn a_list_excludes_processed_events() {
        for (start, version, stored_at, expected) in [
            (Start::After(10), 10, None, false),
            (Start::After(10), 11, None, true),
            (Start::Since(Some(time(7))), 1, Some(time(6)), false),
            (Start::Since(Some(time(7))), 1, Some(time(7)), true),
            (Start::Since(Some(time(7))), 1, None, true),
            (Start::Since(None), 1, Some(time(1)), true),
        ] {
            assert_eq!(
                start.includes(version, stored_at),
                expected,
                "{start:?} {version} {stored_at:?}"
            );
        }
    }

    #[test]
    fn the_time_of_a_cursor_never_decreases() {
        let cursor = Cursor {
            resource_version: 10,
            time: Some(time(7)),
        };
        assert_eq!(cursor.advance(11, None).time, Some(time(7)));
        assert_eq!(cursor.advance(11, Some(time(6))).time, Some(time(7)));
        assert_eq!(
            cursor.advance(3, Some(time(8))),
            Cursor {
                resource_version: 3,
                time: Some(time(8))
            }
        );
    }
}
