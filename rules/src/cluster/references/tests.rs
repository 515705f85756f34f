//! What is read by name, and when again.

use serde_json::json;

use super::*;
use crate::check::{Options, check_one};
use crate::object::Object;

fn secret(name: &str) -> Identity {
    Identity {
        kind: "Secret".into(),
        namespace: "apps".into(),
        name: name.into(),
    }
}

fn there(version: &str, token: &str) -> Answer {
    let metadata = json!({"name": "s", "namespace": "apps"});
    let object = Object::new(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}}),
    );
    Answer::There {
        version: version.to_owned(),
        checked: Box::new(check_one(&object, &[], &Options::default())),
    }
}

/// One Secret that is named and known.
fn known() -> Named {
    let mut named = Named::default();
    named.want(HashSet::from([secret("s")]));
    assert!(!named.is_complete());
    assert_eq!(named.take_stale(9), [secret("s")]);
    assert!(
        !named.is_settled() && named.take_stale(9).is_empty(),
        "it is being read"
    );
    assert!(named.put(&secret("s"), there("1", "a")));
    assert!(named.is_complete() && named.is_settled());
    named
}

#[test]
fn only_what_is_named_and_has_changed_is_read() {
    let mut named = known();
    assert!(!named.hint(&secret("other"), Some("1")), "nobody names it");
    assert!(!named.hint(&secret("s"), Some("1")), "that state is known");
    assert!(named.take_stale(9).is_empty());
    assert!(named.hint(&secret("s"), Some("2")));
    assert_eq!(named.take_stale(9), [secret("s")]);
    assert!(
        !named.put(&secret("s"), there("2", "a")),
        "its values are the same"
    );
    named.hint(&secret("s"), Some("3"));
    assert_eq!(named.take_stale(9).len(), 1);
    assert!(named.put(&secret("s"), there("3", "b")));
}

#[test]
fn a_change_while_it_is_read_is_read_again() {
    let mut named = known();
    named.hint(&secret("s"), Some("2"));
    named.take_stale(9);
    named.hint(&secret("s"), Some("3"));
    assert!(named.take_stale(9).is_empty());
    named.put(&secret("s"), there("2", "b"));
    assert_eq!(named.take_stale(9), [secret("s")]);
}

#[test]
fn one_that_goes_and_comes_is_followed() {
    let mut named = known();
    assert!(
        named.listed("Secret", None, &HashSet::new()),
        "a list without it"
    );
    named.take_stale(9);
    assert!(named.put(&secret("s"), Answer::Missing) && named.checked().count() == 0);
    assert!(
        !named.listed("Secret", Some("apps"), &HashSet::new()),
        "that is known"
    );
    assert!(named.hint(&secret("s"), Some("5")), "it appears");
    named.want(HashSet::new());
    assert!(named.is_settled(), "nobody names it any more");
}

#[test]
fn what_can_not_be_read_is_told_and_what_was_known_stays() {
    let mut named = known();
    named.hint(&secret("s"), Some("2"));
    named.take_stale(9);
    assert!(named.put(&secret("s"), Answer::Refused("forbidden".into())));
    assert_eq!((named.checked().count(), named.troubles().count()), (1, 1));
    assert!(named.try_again());
    named.take_stale(9);
    assert!(
        !named.put(&secret("s"), Answer::Refused("forbidden".into())),
        "no news"
    );
    named.want(HashSet::from([secret("t")]));
    named.take_stale(9);
    named.put(&secret("t"), Answer::Failed("no answer".into()));
    assert!(!named.is_complete(), "whether it is there is open");
    named.try_again();
    named.take_stale(9);
    named.put(&secret("t"), Answer::Refused("forbidden".into()));
    assert!(named.is_complete());
}

#[test]
fn what_no_object_can_be_called_is_told_and_never_asked_for() {
    let long = "a".repeat(LONGEST_NAME + 1);
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
        let mut named = Named::default();
        named.want(HashSet::from([secret(name)]));
        assert!(named.is_complete() && named.is_settled(), "{name}");
        named.listed("Secret", None, &HashSet::new());
        named.doubt();
        assert!(
            !named.try_again() && named.take_stale(9).is_empty(),
            "{name}"
        );
        let told: Vec<_> = named.troubles().collect();
        assert!(
            told.len() == 1 && told[0].1.starts_with("no Secret can have this name"),
            "{told:?}"
        );
    }
    for name in ["a", "0", "a-b", "a.b-c.0", &long[1..]] {
        let mut named = Named::default();
        named.want(HashSet::from([secret(name)]));
        assert_eq!(named.take_stale(9), [secret(name)]);
    }
}

#[test]
fn what_is_refused_is_tried_more_and_more_seldom_and_at_once_when_it_changes() {
    let mut named = known();
    named.doubt();
    let mut refuse_after = || {
        assert_eq!(named.take_stale(9), [secret("s")]);
        named.put(&secret("s"), Answer::Refused("forbidden".into()));
        (1..).find(|_| named.try_again()).unwrap()
    };
    let retries: Vec<u32> = (0..9).map(|_| refuse_after()).collect();
    assert_eq!(retries, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(named.take_stale(9).len(), 1);
    named.put(&secret("s"), Answer::Refused("forbidden".into()));
    assert!(!named.try_again());
    assert!(named.hint(&secret("s"), Some("2")));
    named.take_stale(9);
    named.put(&secret("s"), there("2", "b"));
    named.doubt();
    named.take_stale(9);
    named.put(&secret("s"), Answer::Refused("forbidden".into()));
    assert!(named.try_again(), "from the beginning");
}
