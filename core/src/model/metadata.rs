//! The metadata of a delivery: that of its event, and that of its Alert.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::flux;
use crate::{Delivery, Event};

/// Keys without prefix, and values.
pub type Metadata = BTreeMap<String, String>;

/// Adds the metadata of the event to that of the Alert. The object's annotations give way to the
/// Alert's metadata, which gives way to the controller's.
pub fn merge(of_alert: Metadata, event: &Event) -> Metadata {
    let object = event.involved_object.as_ref();
    let group = object.map_or("", |object| flux::api_group(&object.api_version));
    let mut merged: Metadata = of_group(event, flux::EVENT_GROUP).collect();
    merged.extend(of_alert);
    merged.extend(of_group(event, group));
    merged
}

/// The size of the event's metadata in bytes.
pub fn size(event: &Event) -> usize {
    let pairs = event.metadata.iter();
    pairs.map(|(key, value)| key.len() + value.len()).sum()
}

/// The metadata of a delivery. Large metadata is not in the delivery, but in its event.
pub fn of_delivery<'a>(delivery: &'a Delivery, event: &Event) -> Cow<'a, Metadata> {
    match delivery.lacks_event_metadata {
        true => Cow::Owned(merge(delivery.metadata.clone(), event)),
        false => Cow::Borrowed(&delivery.metadata),
    }
}

/// The metadata of one API group. The core group has the prefix `/`.
fn of_group<'a>(event: &'a Event, group: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    event.metadata.iter().filter_map(move |(key, value)| {
        let key = key.strip_prefix(group)?.strip_prefix('/')?;
        Some((key.to_owned(), value.clone()))
    })
}
