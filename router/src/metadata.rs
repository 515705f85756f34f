//! The metadata of a delivery: what the event says, and what the Alert adds.

use std::collections::BTreeMap;

use tidings_core::{Event, flux};
use tidings_rules::Alert;

use crate::matching::object;

/// Combines metadata under keys without their prefix. What comes later in this list wins: the user's annotations, the
/// Alert's `eventMetadata`, its `summary`, what the controller says.
pub fn combine(alert: &Alert, event: &Event) -> BTreeMap<String, String> {
    let group = flux::api_group(&object(event).api_version);
    let mut combined: BTreeMap<String, String> = of_group(event, flux::EVENT_GROUP).collect();
    combined.extend(alert.event_metadata.clone());
    if !alert.summary.is_empty() {
        combined.insert("summary".to_owned(), alert.summary.clone());
    }
    combined.extend(of_group(event, group));
    combined
}

/// The metadata under one prefix. Objects of the core group have the prefix `/`.
fn of_group<'a>(event: &'a Event, group: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    event.metadata.iter().filter_map(move |(key, value)| {
        let key = key.strip_prefix(group)?.strip_prefix('/')?;
        Some((key.to_owned(), value.clone()))
    })
}
