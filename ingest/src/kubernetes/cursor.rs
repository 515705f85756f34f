//! How far the Events of a cluster were taken, and where to go on. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The annotation of the Lease that holds it.
const ANNOTATION: &str = "tidings/events-cursor";

/// All Events up to here are stored on the bus, or not meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Up to this version of the storage. The API server's versions are numbers that grow.
    pub resource_version: u64,
    /// The latest time at which the API server had stored one of them, by its own clock.
    pub time: Option<Timestamp>,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Watch what comes after this version.
    After(u64),
    /// The storage has been set back or is another one, so versions mean nothing: list, and take
    /// what was stored at this time or later, or everything where no time is known.
    Since(Option<Timestamp>),
}

impl Cursor {
    /// The cursor that a Lease carries. One that can't be read counts as none.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(annotations.get(ANNOTATION)?).ok()
    }

    /// The annotations for a Lease.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        // Numbers and times can always be written.
        BTreeMap::from([(
            ANNOTATION.to_owned(),
            serde_json::to_string(self).unwrap_or_default(),
        )])
    }

    /// Where to go on in a storage that is at the version `now`.
    pub fn start(&self, now: u64) -> Start {
        if self.resource_version <= now {
            Start::After(self.resource_version)
        } else {
            Start::Since(self.time)
        }
    }

    /// Moved to another version; times only grow.
    pub fn moved(self, resource_version: u64, time: Option<Timestamp>) -> Self {
        Self {
            resource_version,
            time: self.time.max(time),
        }
    }
}

impl Start {
    /// Whether an Event of a list is still to be taken.
    pub fn leaves(&self, resource_version: u64, stored_at: Option<Timestamp>) -> bool {
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
    fn a_cursor_is_kept_as_an_annotation() {
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
    fn a_storage_that_is_behind_the_cursor_is_taken_anew_by_time() {
        let cursor = Cursor {
            resource_version: 10,
            time: Some(time(7)),
        };
        assert_eq!(cursor.start(10), Start::After(10));
        assert_eq!(cursor.start(11), Start::After(10));
        assert_eq!(cursor.start(9), Start::Since(Some(time(7))));
    }

    #[test]
    fn what_was_taken_is_left_out_of_a_list() {
        for (start, version, stored_at, leaves) in [
            (Start::After(10), 10, None, false),
            (Start::After(10), 11, None, true),
            (Start::Since(Some(time(7))), 1, Some(time(6)), false),
            (Start::Since(Some(time(7))), 1, Some(time(7)), true),
            (Start::Since(Some(time(7))), 1, None, true),
            (Start::Since(None), 1, Some(time(1)), true),
        ] {
            assert_eq!(
                start.leaves(version, stored_at),
                leaves,
                "{start:?} {version} {stored_at:?}"
            );
        }
    }

    #[test]
    fn the_time_of_a_cursor_only_grows() {
        let cursor = Cursor {
            resource_version: 10,
            time: Some(time(7)),
        };
        assert_eq!(cursor.moved(11, None).time, Some(time(7)));
        assert_eq!(cursor.moved(11, Some(time(6))).time, Some(time(7)));
        assert_eq!(
            cursor.moved(3, Some(time(8))),
            Cursor {
                resource_version: 3,
                time: Some(time(8))
            }
        );
    }
}
