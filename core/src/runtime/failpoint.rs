//! Fail points: named places, before and after each side effect of each role, at which a fault test
//! kills the process or panics.
//!
//! They exist only in builds with debug assertions, and are set by the variable `FAIL_POINT`:
//!
//! | value | effect |
//! |---|---|
//! | `worker:accepted@3` | SIGKILL when the process reaches the point for the third time |
//! | `worker:calling@1?poison` | the same, but only for a subject that contains `poison` |
//! | `worker:calling@1?poison!panic` | the task panics instead |
//!
//! A line on standard error says that the point was reached.

/// The fail points around side effects on the bus and on services, as `ROLE:STEP`.
pub const BUS_POINTS: &[&str] = &[
    "ingest:storing",
    "ingest:stored",
    "router:enqueueing",
    "router:enqueued",
    "router:acknowledged",
    "worker:marking",
    "worker:marked",
    "worker:cleared",
    "worker:reserving",
    "worker:reserved",
    "worker:recording",
    "worker:recorded",
    "worker:leased",
    "worker:calling",
    "worker:accepted",
    "worker:parking",
    "worker:parked",
    "worker:storing-dead-letter",
    "worker:dead-letter-stored",
    "worker:requeueing",
    "worker:requeued",
    "worker:acknowledged",
];

/// The fail points around side effects on the Kubernetes API, and around those on the bus that
/// follow from it. The subject of the points `lease:*` is the name of the Lease.
pub const CLUSTER_POINTS: &[&str] = &[
    "router:counting",
    "router:counted",
    "router:reporting",
    "router:reported",
    "router:writing",
    "router:written",
    "router:releasing",
    "router:released",
    "ingest:storing",
    "ingest:stored",
    "lease:taking",
    "lease:taken",
    "lease:renewing",
    "lease:renewed",
    "lease:annotating",
    "lease:annotated",
    "lease:returning",
    "lease:returned",
];

/// The fail points of a bridge.
pub const BRIDGE_POINTS: &[&str] = &["bridge:sending", "bridge:sent", "bridge:acknowledged"];

/// The fail points of `tidings fleet remove`, `rename` and `add-worker`.
pub const FLEET_POINTS: &[&str] = &[
    "fleet:revoked",
    "fleet:discarding",
    "fleet:dead-letter-stored",
    "fleet:discarded",
    "fleet:states-deleted",
    "fleet:record-deleted",
    "fleet:issued",
];
/// The fail points of an edge.
pub const EDGE_POINTS: &[&str] = &["edge:sending", "edge:sent"];

/// Kills the process or panics, if `FAIL_POINT` names this point.
#[inline]
pub fn reach(name: &str) {
    reach_for(name, "");
}

/// Like [`reach`], for a subject such as the text of an event.
#[inline]
pub fn reach_for(name: &str, subject: &str) {
    #[cfg(debug_assertions)]
    armed::reach(name, subject);
    let _ = (name, subject);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Armed {
        name: String,
        subject: String,
        panics: bool,
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn reach(name: &str, subject: &str) {
        let is_known = [
            super::BUS_POINTS,
            super::CLUSTER_POINTS,
            super::BRIDGE_POINTS,
            super::FLEET_POINTS,
            super::EDGE_POINTS,
        ]
        .iter()
        .any(|points| points.contains(&name));
        debug_assert!(is_known, "fail point {name} is not listed");
        let is_armed = |armed: &&Armed| armed.name == name && subject.contains(&armed.subject);
        let Some(armed) = ARMED.get_or_init(read).as_ref().filter(is_armed) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("fail point {name} reached");
            assert!(!armed.panics, "fail point {name} panics");
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            loop {
                std::thread::park();
            }
        }
    }

    fn read() -> Option<Armed> {
        #[expect(
            clippy::disallowed_methods,
            reason = "not a setting: it exists for fault tests only"
        )]
        let text = std::env::var("FAIL_POINT").ok()?;
        parse(&text)
    }

    fn parse(text: &str) -> Option<Armed> {
        let (text, panics) = text
            .strip_suffix("!panic")
            .map_or((text, false), |text| (text, true));
        let (point, subject) = text.split_once('?').unwrap_or((text, ""));
        let (name, count) = point.split_once('@').unwrap_or((point, "1"));
        let left = AtomicU32::new(count.parse().ok()?);
        Some(Armed {
            name: name.to_owned(),
            subject: subject.to_owned(),
            panics,
            left,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fail_point_has_a_count_a_subject_and_an_effect() {
            for (text, expected) in [
                ("a:b", ("a:b", "", false, 1)),
                ("a:b@3", ("a:b", "", false, 3)),
                ("a:b@2?poison!", ("a:b", "poison!", false, 2)),
                ("a:b!panic", ("a:b", "", true, 1)),
                ("a:b@2?poison!panic", ("a:b", "poison", true, 2)),
            ] {
                let armed = parse(text).unwrap();
                let left = armed.left.load(Ordering::SeqCst);
                assert_eq!(
                    (
                        armed.name.as_str(),
                        armed.subject.as_str(),
                        armed.panics,
                        left
                    ),
                    expected,
                    "{text}"
                );
            }
        }
    }
}
