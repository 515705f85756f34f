//! Reads a delivery from a message, which any client of the bus may have published.

use bytes::Bytes;
use tidings_core::model::origin::MAX_CLUSTER_NAME;
use tidings_core::model::time::from_proto;
use tidings_core::{Delivery, Message as _};

/// The longest id of a delivery, and the longest name of an object or id of an event, in bytes. A
/// namespace that is qualified with the name of a cluster is the longest name.
const MAX_ID: usize = 200;
const MAX_NAME: usize = MAX_CLUSTER_NAME + 1 + 63;

/// The delivery in a message. `None` if it is not one that a router plans: its ids go into headers
/// and keys, so another one would fail at each redelivery.
pub fn read(payload: Bytes) -> Option<Delivery> {
    let delivery = Delivery::decode(payload).ok()?;
    let provider = delivery.provider.as_ref()?;
    let alert = delivery.alert.as_ref()?;
    let names = [
        &provider.namespace,
        &provider.name,
        &alert.namespace,
        &alert.name,
    ];
    let is_whole = is_id(&delivery.id)
        && is_name(&delivery.event_id)
        && names.into_iter().all(|name| is_name(name))
        && [&provider.r#type, &provider.pool]
            .into_iter()
            .all(|text| text.is_empty() || is_name(text))
        && (delivery.planned_at.is_none() || from_proto(delivery.planned_at).is_some())
        && (delivery.unauthorized_since.is_none()
            || from_proto(delivery.unauthorized_since).is_some());
    is_whole.then_some(delivery)
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use tidings_core::ProtoTimestamp;
    use tidings_core::wire::{AlertReference, ProviderReference};

    use super::*;

    fn delivery() -> Delivery {
        Delivery {
            id: "d1".into(),
            event_id: "e1".into(),
            alert: Some(AlertReference {
                namespace: "apps".into(),
                name: "all".into(),
                ..AlertReference::default()
            }),
            provider: Some(ProviderReference {
                namespace: "apps".into(),
                name: "hook".into(),
                ..ProviderReference::default()
            }),
            ..Delivery::default()
        }
    }

    #[test]
    fn a_message_that_no_router_wrote_is_no_delivery() {
        let changes: [fn(&mut Delivery); 9] = [
            |delivery| delivery.id.clear(),
            |delivery| delivery.id = "a\nb".into(),
            |delivery| delivery.id = "a".repeat(MAX_ID + 1),
            |delivery| delivery.event_id = "a\nb".into(),
            |delivery| delivery.alert = None,
            |delivery| delivery.provider = None,
            |delivery| {
                let provider = delivery.provider.get_or_insert_default();
                provider.pool = "p".repeat(MAX_NAME + 1);
            },
            |delivery| delivery.provider.get_or_insert_default().name.clear(),
            |delivery| {
                delivery.planned_at = Some(ProtoTimestamp {
                    seconds: i64::MIN,
                    nanos: i32::MAX,
                });
            },
        ];
        assert_eq!(read(delivery().encode_to_vec().into()), Some(delivery()));
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = delivery();
            change(&mut changed);
            assert_eq!(read(changed.encode_to_vec().into()), None, "{number}");
        }
        assert_eq!(read(Bytes::new()), None);
        assert_eq!(read(Bytes::from_static(b"{}")), None);
    }
}
