//! Merges the metadata of a delivery from its event and its Alert.

use tidings_core::Event;
use tidings_core::model::metadata::{self, Metadata};
use tidings_rules::Alert;

/// Merges metadata and removes the prefixes of keys. Sources, of which a later one wins: the
/// object's annotations, the Alert's `eventMetadata`, its `summary`, the controller's metadata.
pub fn merge(alert: &Alert, event: &Event) -> Metadata {
    metadata::merge(of_alert(alert), event)
}

/// The Alert's `eventMetadata` and `summary`.
pub fn of_alert(alert: &Alert) -> Metadata {
    let mut metadata = alert.event_metadata.clone();
    if !alert.summary.is_empty() {
        metadata.insert("summary".to_owned(), alert.summary.clone());
    }
    metadata
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
