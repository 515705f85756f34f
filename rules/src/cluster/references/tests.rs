//! Which objects are read, and when they are read again.

use serde_json::json;

use super::*;
use crate::check::check_one;
use crate::options::Options;
use crate::testing;

fn secret(name: &str) -> Identity {
    Identity {
        kind: "Secret".into(),
        namespace: "apps".into(),
        name: name.into(),
    }
}

fn found(version: &str, token: &str) -> ReadResult {
    let object = testing::secret("s", json!({"token": token})).object();
    ReadResult::Found {
        version: version.to_owned(),
        checked: Box::new(check_one(&object, &[], &Options::default())),
    }
}

/// References to one Secret that has been read.
fn read_references() -> References {
    let mut references = References::default();
    references.replace(HashSet::from([secret("s")]));
    assert!(!references.is_complete());
    assert_eq!(references.take_stale(9), [secret("s")]);
    assert!(
        !references.is_idle() && references.take_stale(9).is_empty(),
        "the read is pending"
    );
    assert!(references.record(&secret("s"), found("1", "a")));
    assert!(references.is_complete() && references.is_idle());
    references
}

#[test]
fn only_referenced_objects_that_have_changed_are_read() {
    let mut references = read_references();
    assert!(
        !references.observe(&secret("other"), Some("1")),
        "no rule references it"
    );
    assert!(
        !references.observe(&secret("s"), Some("1")),
        "that version was read"
    );
    assert!(references.take_stale(9).is_empty());
    assert!(references.observe(&secret("s"), Some("2")));
    assert_eq!(references.take_stale(9), [secret("s")]);
    assert!(
        !references.record(&secret("s"), found("2", "a")),
        "the values are unchanged"
    );
    references.observe(&secret("s"), Some("3"));
    assert_eq!(references.take_stale(9).len(), 1);
    assert!(references.record(&secret("s"), found("3", "b")));
}

#[test]
fn a_change_during_a_read_causes_another_read() {
    let mut references = read_references();
    references.observe(&secret("s"), Some("2"));
    references.take_stale(9);
    references.observe(&secret("s"), Some("3"));
    assert!(references.take_stale(9).is_empty());
    references.record(&secret("s"), found("2", "b"));
    assert_eq!(references.take_stale(9), [secret("s")]);
}

#[test]
fn deletion_and_creation_are_followed() {
    let mut references = read_references();
    assert!(
        references.listed("Secret", None, &HashSet::new()),
        "a list without it"
    );
    references.take_stale(9);
    assert!(
        references.record(&secret("s"), ReadResult::NotFound) && references.checked().count() == 0
    );
    assert!(
        !references.listed("Secret", Some("apps"), &HashSet::new()),
        "the deletion was read"
    );
    assert!(
        references.observe(&secret("s"), Some("5")),
        "the object is created"
    );
    references.replace(HashSet::new());
    assert!(references.is_idle(), "no rule references it any more");
}

#[test]
fn a_failed_read_is_reported_and_keeps_the_contents() {
    let mut references = read_references();
    references.observe(&secret("s"), Some("2"));
    references.take_stale(9);
    assert!(references.record(&secret("s"), ReadResult::Denied("forbidden".into())));
    assert_eq!(
        (references.checked().count(), references.errors().count()),
        (1, 1)
    );
    assert!(references.retry());
    references.take_stale(9);
    assert!(
        !references.record(&secret("s"), ReadResult::Denied("forbidden".into())),
        "the same error"
    );
    references.replace(HashSet::from([secret("t")]));
    references.take_stale(9);
    references.record(&secret("t"), ReadResult::Failed("no answer".into()));
    assert!(!references.is_complete(), "the object may exist");
    references.retry();
    references.take_stale(9);
    references.record(&secret("t"), ReadResult::Denied("forbidden".into()));
    assert!(references.is_complete());
}

#[test]
fn an_invalid_name_is_reported_and_never_read() {
    let long = "a".repeat(object_name::MAX_NAME + 1);
    for name in [
        "",
        "Token",
        "a/b",
        "../a",
        "a..b",
        "-a",
        "a-",
        ".a",
        "a b",
        "a?x=1",
        "t\u{f6}ken",
        &long,
    ] {
        let mut references = References::default();
        references.replace(HashSet::from([secret(name)]));
        assert!(references.is_complete() && references.is_idle(), "{name}");
        references.listed("Secret", None, &HashSet::new());
        references.mark_all_stale();
        assert!(
            !references.retry() && references.take_stale(9).is_empty(),
            "{name}"
        );
        let errors: Vec<_> = references.errors().collect();
        assert!(
            errors.len() == 1 && errors[0].1.starts_with("invalid Secret name"),
            "{errors:?}"
        );
    }
    for name in ["a", "0", "a-b", "a.b-c.0", &long[1..]] {
        let mut references = References::default();
        references.replace(HashSet::from([secret(name)]));
        assert_eq!(references.take_stale(9), [secret(name)]);
    }
}

#[test]
fn a_denied_read_is_retried_with_a_backoff_and_at_once_after_a_change() {
    let mut references = read_references();
    references.mark_all_stale();
    let mut deny_after = || {
        assert_eq!(references.take_stale(9), [secret("s")]);
        references.record(&secret("s"), ReadResult::Denied("forbidden".into()));
        (1..).find(|_| references.retry()).unwrap()
    };
    let retries: Vec<u32> = (0..9).map(|_| deny_after()).collect();
    assert_eq!(retries, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(references.take_stale(9).len(), 1);
    references.record(&secret("s"), ReadResult::Denied("forbidden".into()));
    assert!(!references.retry());
    assert!(references.observe(&secret("s"), Some("2")));
    references.take_stale(9);
    references.record(&secret("s"), found("2", "b"));
    references.mark_all_stale();
    references.take_stale(9);
    references.record(&secret("s"), ReadResult::Denied("forbidden".into()));
    assert!(references.retry(), "the backoff starts again");
}
