//! What a delivery carries of an event that is too large to be copied into it.

use crate::model::text::cut_bytes;
use crate::{Delivery, Event, ObjectReference};

/// The most bytes of each text of an excerpt.
const MOST_OF_A_TEXT: usize = 1024;

/// The event without metadata and labels, and with the beginning of each longer text.
pub fn excerpt(event: &Event) -> Event {
    let cut = |text: &str| cut_bytes(text, MOST_OF_A_TEXT);
    let object = event.involved_object.as_ref();
    Event {
        id: event.id.clone(),
        dedupe_key: event.dedupe_key.clone(),
        cluster: cut(&event.cluster),
        involved_object: object.map(|object| ObjectReference {
            api_version: cut(&object.api_version),
            kind: cut(&object.kind),
            namespace: cut(&object.namespace),
            name: cut(&object.name),
            uid: cut(&object.uid),
            resource_version: cut(&object.resource_version),
            field_path: cut(&object.field_path),
        }),
        severity: cut(&event.severity),
        timestamp: event.timestamp,
        message: cut(&event.message),
        reason: cut(&event.reason),
        reporting_controller: cut(&event.reporting_controller),
        reporting_instance: cut(&event.reporting_instance),
        received_at: event.received_at,
        ..Event::default()
    }
}

/// The event of a delivery as far as the delivery carries it: the whole event, or its excerpt.
/// `None` for a large event whose delivery an older Tidings planned.
pub fn carried_event(delivery: &Delivery) -> Option<&Event> {
    delivery.event.as_ref().or(delivery.excerpt.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_small_and_names_object_reason_and_message() {
        let object = ObjectReference {
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "n".repeat(1 << 20),
            field_path: "f".repeat(1 << 20),
            ..ObjectReference::default()
        };
        let mut event = Event {
            id: "e".into(),
            cluster: "prod".into(),
            involved_object: Some(object),
            reason: "BuildFailed".into(),
            message: "é".repeat(1 << 20),
            ..Event::default()
        };
        event.metadata.insert("k".into(), "v".repeat(1 << 20));
        let excerpt = excerpt(&event);
        assert!(prost::Message::encoded_len(&excerpt) < 5 * MOST_OF_A_TEXT);
        assert_eq!((&*excerpt.id, &*excerpt.cluster), ("e", "prod"));
        assert_eq!(excerpt.reason, "BuildFailed");
        assert_eq!(excerpt.message, format!("{}…", "é".repeat(510)));
        let object = excerpt.involved_object.unwrap();
        assert_eq!(
            (&*object.kind, &*object.namespace),
            ("Kustomization", "apps")
        );
        assert!(object.name.starts_with("nnn"));
    }
}
