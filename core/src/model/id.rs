//! Ids. The id of an event is created once, by ingest. All other ids are derived from it, so that
//! every replica computes the same ones.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use tidings_proto::v1::Event;

use crate::model::token::{Token, hex};

/// The name of a cluster that has none.
const DEFAULT_CLUSTER: &str = "default";

/// Metadata that distinguishes two events that are otherwise equal.
///
/// The values are those under the API group of the object. An absent value differs from an empty
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discriminators {
    /// The git revision behind an OCI artifact.
    pub origin_revision: Option<String>,
    /// The revision of the source.
    pub revision: Option<String>,
    /// The token that the sender chose to make the event unique.
    pub token: Option<String>,
}

/// The dedupe key: equal for copies of the same event on every replica. 64 hexadecimal digits.
pub fn dedupe_key(event: &Event, discriminators: &Discriminators) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    let required = [
        &event.cluster,
        &object.kind,
        &object.namespace,
        &object.name,
        &event.message,
        &event.reason,
        &event.severity,
    ];
    let optional = [
        &discriminators.origin_revision,
        &discriminators.revision,
        &discriminators.token,
    ];
    let mut hash = Sha256::new();
    for text in required {
        update(&mut hash, Some(text));
    }
    for text in optional {
        update(&mut hash, text.as_deref());
    }
    hex(&hash.finalize())
}

/// The message id of an event that repeats a state after it changed: `<dedupe key>#<sequence>`. The
/// sequence is that of the event with the opposite state.
pub fn message_id_since(dedupe_key: &str, sequence: u64) -> String {
    format!("{dedupe_key}#{sequence}")
}

/// The message id of an event that an edge forwards: `<dedupe key>#<event id>`.
///
/// The edge stores an event for each report that counts. Two of them may be equal and arrive at the
/// hub together, so each has an id of its own.
pub fn message_id_of_edge(dedupe_key: &str, event_id: &str) -> String {
    format!("{dedupe_key}#{event_id}")
}

/// The message id of a member of a fleet: `<message id>#<hash>`.
///
/// The stream of events has one table of message ids for all clusters. The hash needs the secret of
/// the member, so no other member can let the server take the event for a duplicate.
pub fn message_id_of_member(message_id: &str, secret: &str) -> String {
    format!("{message_id}#{}", digest(&[secret, message_id]))
}

/// The dedupe key of the event with this message id.
pub fn dedupe_key_of(message_id: &str) -> &str {
    message_id
        .split_once('#')
        .map_or(message_id, |(key, _)| key)
}

/// The id of an event. A copy received after the dedupe interval is another event. 32 hexadecimal
/// digits.
pub fn event_id(dedupe_key: &str, received_at_nanoseconds: i128) -> String {
    digest(&[dedupe_key, &received_at_nanoseconds.to_string()])
}

/// What ids of deliveries take for the id of an event of this member of a fleet.
///
/// A member of a fleet writes the id of its events, so it could give one the id of an event of
/// another cluster. The server would take the deliveries of one for copies of the other's.
pub fn event_key<'a>(event_id: &'a str, cluster: &str) -> Cow<'a, str> {
    let has_plain_key = matches!(cluster, DEFAULT_CLUSTER | "") && !event_id.contains('/');
    match has_plain_key {
        true => event_id.into(),
        // No token contains a slash.
        false => format!("{}/{event_id}", Token::new(cluster)).into(),
    }
}

/// The id of a delivery: of an event ([`event_key`]); `generation` is 0, or the number of a replay.
/// 32 hexadecimal digits.
pub fn delivery_id(
    event_key: &str,
    alert: (&str, &str),
    provider: (&str, &str),
    generation: u32,
) -> String {
    let generation = if generation == 0 {
        "0".to_owned()
    } else {
        format!("r{generation}")
    };
    digest(&[
        event_key,
        alert.0,
        alert.1,
        provider.0,
        provider.1,
        &generation,
    ])
}

/// A short hash of several texts. 32 hexadecimal digits.
pub fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        update(&mut hash, Some(text));
    }
    hex(&hash.finalize()[..16])
}

/// Hashes the length before the text, so that different lists of texts have different hashes.
fn update(hash: &mut Sha256, text: Option<&str>) {
    match text {
        Some(text) => {
            hash.update((text.len() as u64 + 1).to_be_bytes());
            hash.update(text);
        }
        None => hash.update(0u64.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(message: &str, reason: &str) -> Event {
        Event {
            message: message.into(),
            reason: reason.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_message_id_of_a_member_depends_on_its_secret() {
        let ids = ["a", "b"].map(|secret| message_id_of_member("key", secret));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0], message_id_of_member("key", "a"));
        for id in [
            &ids[0],
            &message_id_of_member(&message_id_since("key", 7), "a"),
        ] {
            assert_eq!(dedupe_key_of(id), "key", "{id}");
        }
    }

    #[test]
    fn the_dedupe_key_depends_on_where_each_part_ends() {
        let none = Discriminators::default();
        assert_eq!(
            dedupe_key(&sample("a", "b"), &none),
            dedupe_key(&sample("a", "b"), &none)
        );
        assert_ne!(
            dedupe_key(&sample("ab", ""), &none),
            dedupe_key(&sample("a", "b"), &none)
        );
        let empty = Discriminators {
            revision: Some(String::new()),
            ..Default::default()
        };
        assert_ne!(
            dedupe_key(&sample("a", "b"), &none),
            dedupe_key(&sample("a", "b"), &empty)
        );
        let token = Discriminators {
            token: Some(String::new()),
            ..Default::default()
        };
        assert_ne!(
            dedupe_key(&sample("a", "b"), &token),
            dedupe_key(&sample("a", "b"), &empty)
        );
    }

    #[test]
    fn the_message_id_of_a_repeated_state_holds_the_dedupe_key() {
        assert_eq!(message_id_since("ab", 7), "ab#7");
        for id in ["ab", "ab#7"] {
            assert_eq!(dedupe_key_of(id), "ab");
        }
    }

    #[test]
    fn another_severity_or_reason_is_another_event() {
        let none = Discriminators::default();
        let info = Event {
            severity: "info".into(),
            ..sample("a", "b")
        };
        let error = Event {
            severity: "error".into(),
            ..sample("a", "b")
        };
        assert_ne!(dedupe_key(&info, &none), dedupe_key(&error, &none));
        assert_ne!(
            dedupe_key(&sample("a", "b"), &none),
            dedupe_key(&sample("a", "c"), &none)
        );
    }

    #[test]
    fn equal_event_ids_of_two_clusters_give_different_deliveries() {
        let id = |cluster| delivery_id(&event_key("e", cluster), ("apps", "a"), ("apps", "p"), 0);
        let ids = ["default", "prod", "dev"].map(id);
        assert_eq!(ids[0], delivery_id("e", ("apps", "a"), ("apps", "p"), 0));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        let of_prod = event_key("e", "prod");
        for cluster in ["default", "", "dev", "prod"] {
            assert_ne!(event_key(&of_prod, cluster), of_prod, "{cluster}");
        }
    }

    #[test]
    fn a_delivery_keeps_its_id_and_a_replay_has_a_new_one() {
        let id = |generation| delivery_id("e", ("apps", "a"), ("apps", "p"), generation);
        assert_eq!(id(0), id(0));
        assert_ne!(id(0), id(1));
        assert_ne!(id(0), delivery_id("e", ("apps", "ap"), ("apps", ""), 0));
        assert_eq!(id(0).len(), 32);
    }
}
