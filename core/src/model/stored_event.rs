//! Reads a message of the stream EVENTS, and checks which cluster it is from.
//!
//! The NATS server permits each cluster only subjects with its own token, so the token is the
//! truth. The body is what the client claims. Every reader of EVENTS uses [`read`].

use prost::Message as _;
use tidings_proto::v1::Event;

use crate::model::text::visible;
use crate::model::token::Token;

/// The largest body of a posted event that ingest accepts, as in notification-controller.
pub const MAX_BODY_BYTES: usize = 3 << 20;
/// At most this many characters of a claimed name are reported.
const MAX_REPORTED: usize = 253;

/// Why a message of EVENTS is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedEvent {
    /// The body is not an event.
    #[error("the message on {subject} is not an event")]
    Undecodable {
        /// The subject of the message.
        subject: String,
    },
    /// The body names another cluster than the subject.
    #[error("the message on {subject} claims to be of cluster {claimed:?}")]
    OtherCluster {
        /// The subject of the message.
        subject: String,
        /// The cluster's token in the subject: who published it.
        token: String,
        /// The cluster that the body names, shortened.
        claimed: String,
    },
}

/// Decodes a message of EVENTS whose body names the cluster of its subject.
///
/// # Errors
/// The body is not an event, or names another cluster.
pub fn read(subject: &str, payload: &[u8]) -> Result<Event, RefusedEvent> {
    let event = Event::decode(payload).ok();
    // Ingest gives each event an id. An empty message decodes as an event without one.
    let event = event.filter(|event| !event.id.is_empty());
    let event = event.ok_or_else(|| RefusedEvent::Undecodable {
        subject: subject.to_owned(),
    })?;
    let token = cluster_token(subject).unwrap_or_default();
    // Long names are hashed in the subject, so the tokens are compared.
    if Token::new(&event.cluster).as_str() == token {
        return Ok(event);
    }
    Err(RefusedEvent::OtherCluster {
        subject: subject.to_owned(),
        token: token.to_owned(),
        claimed: visible(&event.cluster).chars().take(MAX_REPORTED).collect(),
    })
}

/// The cluster's token in the subject of an event. `None` for any other subject.
pub fn cluster_token(subject: &str) -> Option<&str> {
    let mut tokens = subject.split('.');
    tokens.next().filter(|first| *first == "events")?;
    tokens.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subject;

    fn of_cluster(cluster: &str) -> Event {
        Event {
            id: "id".into(),
            cluster: cluster.into(),
            ..Event::default()
        }
    }

    #[test]
    fn an_event_of_its_subjects_cluster_is_read() {
        for cluster in ["prod-eu", "eu.1", "", &"long".repeat(50)] {
            let event = of_cluster(cluster);
            let read = read(&subject::event(&event), &event.encode_to_vec());
            assert_eq!(read.as_ref(), Ok(&event), "{cluster}");
        }
    }

    #[test]
    fn an_event_that_names_another_cluster_is_refused_with_both_names() {
        let long = "long".repeat(50);
        for (subject_of, claimed) in [
            ("dev-1", "prod-eu"),
            ("dev-1", ""),
            ("dev-1", "dev-1 "),
            ("prod=2Deu", "prod-eu"),
            (long.as_str(), &format!("{long}x")),
        ] {
            let subject = subject::event(&of_cluster(subject_of));
            let refused = read(&subject, &of_cluster(claimed).encode_to_vec());
            let expected = RefusedEvent::OtherCluster {
                token: Token::new(subject_of).to_string(),
                claimed: claimed.to_owned(),
                subject,
            };
            assert_eq!(refused, Err(expected));
        }
        let elsewhere = read("other.dev-1.a.b.c", &of_cluster("dev-1").encode_to_vec());
        assert!(matches!(elsewhere, Err(RefusedEvent::OtherCluster { .. })));
    }

    #[test]
    fn a_body_that_is_no_event_is_refused() {
        let confirmation = br#"{"stream":"EVENTS", "seq":7}"#;
        for body in [&confirmation[..], b"", b"{}", b"\x3a\x01"] {
            let refused = read("events.=.a.b.c", body);
            assert!(
                matches!(refused, Err(RefusedEvent::Undecodable { .. })),
                "{body:?} {refused:?}"
            );
        }
    }
}
