//! Merges the metadata of a delivery from its event and its Alert.

use std::collections::BTreeMap;

use tidings_core::Event;
use tidings_core::model::flux;
use tidings_rules::Alert;

use crate::matching::object;

/// Merges metadata and removes the prefixes of keys. Sources, of which a later one wins: the
/// object's annotations, the Alert's `eventMetadata`, its `summary`, the controller's metadata.
pub fn merge(alert: &Alert, event: &Event) -> BTreeMap<String, String> {
    let group = flux::api_group(&object(event).api_version);
    let mut merged: BTreeMap<String, String> = of_group(event, flux::EVENT_GROUP).collect();
    merged.extend(alert.event_metadata.clone());
    if !alert.summary.is_empty() {
        merged.insert("summary".to_owned(), alert.summary.clone());
    }
    merged.extend(of_group(event, group));
    merged
}

/// The metadata of one API group. The core group has the prefix `/`.
fn of_group<'a>(event: &'a Event, group: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    event.metadata.iter().filter_map(move |(key, value)| {
        let key = key.strip_prefix(group)?.strip_prefix('/')?;
        Some((key.to_owned(), value.clone()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_core::ObjectReference;
    use tidings_rules::testing::alert;
    use tidings_rules::{Options, Rules};

    use super::*;

    #[test]
    fn metadata_of_the_controller_overrides_the_alert_which_overrides_annotations() {
        let alert = alert("a", "p")
            .with("summary", "of the Alert")
            .with(
                "eventMetadata",
                json!({
                    "cluster": "eu", "summary": "lost", "revision": "lost",
                    "note": "of the Alert",
                }),
            )
            .object();
        let rules = Rules::compile(&[alert], &[], &Options::default());
        let metadata = [
            ("event.toolkit.fluxcd.io/note", "lost"),
            ("event.toolkit.fluxcd.io/image/tag", "v1"),
            ("kustomize.toolkit.fluxcd.io/revision", "main"),
            ("unprefixed", "dropped"),
        ];
        let event = Event {
            involved_object: Some(ObjectReference {
                api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
                ..ObjectReference::default()
            }),
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Event::default()
        };
        let merged = merge(rules.alert("apps", "a").unwrap(), &event);
        let expected = [
            ("cluster", "eu"),
            ("image/tag", "v1"),
            ("note", "of the Alert"),
            ("revision", "main"),
            ("summary", "of the Alert"),
        ];
        assert_eq!(
            merged
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect::<Vec<_>>(),
            expected
        );
    }
}
