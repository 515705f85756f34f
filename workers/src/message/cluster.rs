//! The cluster's name in messages. A message names it as soon as it is not `default`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Message;
use crate::text::{cut_chars, cut_id};

/// The name of the only cluster, which no message needs to show.
const ONLY: &str = "default";
/// The longest name that a message shows, in characters.
const LONGEST_NAME: usize = 100;
/// A template names the cluster if its title does, or this much of its text, in characters. What
/// follows may be cut.
const SEARCHED_TEXT: usize = 200;

impl<'a> Message<'a> {
    /// The name of the event's cluster, unless it is `default`.
    pub fn cluster(&self) -> Option<&'a str> {
        let name = self.event.cluster.as_str();
        (!matches!(name, "" | ONLY)).then_some(name)
    }

    /// The title with the cluster's name before it, unless the template has named the cluster.
    pub(super) fn naming_cluster(&self, title: String) -> String {
        match self.cluster().filter(|name| !self.is_named(name)) {
            Some(name) => format!("{}: {title}", cut_chars(name, LONGEST_NAME)),
            None => title,
        }
    }

    fn is_named(&self, name: &str) -> bool {
        let text = self.rendered.text.as_deref().unwrap_or_default();
        let end = text.char_indices().nth(SEARCHED_TEXT);
        let start = &text[..end.map_or(text.len(), |(end, _)| end)];
        let title = self.rendered.title.as_deref().unwrap_or_default();
        [title, start].iter().any(|text| has_word(text, name))
    }

    /// The cluster's name as a field, for types without a title: `cluster`, unless the metadata has
    /// that key for something else. `None` if the metadata has the name already.
    pub fn cluster_field(&self) -> Option<(&'static str, String)> {
        let name = self.cluster()?;
        let key = match self.metadata.get("cluster") {
            None => "cluster",
            Some(value) if value == name => return None,
            Some(_) => "tidings_cluster",
        };
        Some((key, cut_id(name, LONGEST_NAME)))
    }

    /// The metadata with the cluster's name, for types that send the event as JSON.
    pub fn metadata_with_cluster(&self) -> Cow<'a, BTreeMap<String, String>> {
        let Some((key, name)) = self.cluster_field() else {
            return Cow::Borrowed(self.metadata);
        };
        let mut metadata = self.metadata.clone();
        metadata.insert(key.to_owned(), name);
        Cow::Owned(metadata)
    }

    /// The cluster's name as the value of a header; what a header cannot hold is percent-encoded.
    pub fn cluster_header(&self) -> Option<String> {
        let name = self.cluster()?;
        let encode = |byte: u8| match byte {
            b'!'..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        Some(cut_id(name, LONGEST_NAME).bytes().map(encode).collect())
    }

    /// The object's path for ids at services: [`Message::object_path`], with the cluster before it
    /// unless it is `default`.
    pub fn object_path_in_fleet(&self) -> String {
        self.path_in(&self.event.cluster)
    }

    /// The same in a cluster of this name.
    pub(super) fn path_in(&self, cluster: &str) -> String {
        match cluster {
            "" | ONLY => self.object_path(),
            cluster => cut_id(
                &format!("{cluster}/{}", self.object_path()),
                super::LONGEST_TITLE,
            ),
        }
    }
}

/// Whether the text has the name, and not only as a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || "-_".contains(character);
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use crate::message::render::RenderedMessage;
    use crate::notifier::sample::Sample;

    fn sample(cluster: &str) -> Sample {
        let mut sample = Sample::info();
        sample.event.cluster = cluster.into();
        sample.metadata.remove("cluster");
        sample
    }

    #[test]
    fn a_title_names_the_cluster_once() {
        assert_eq!(
            sample("default").message().title(),
            "kustomization/webapp.apps"
        );
        let plain = "kustomization/webapp.apps".to_owned();
        assert_eq!(
            sample("prod-eu").message().title(),
            format!("prod-eu: {plain}")
        );
        for (title, text, expected) in [
            (Some("All of prod-eu"), "text", "All of prod-eu"),
            (Some("All"), "in prod-eu, done", "All"),
            (Some("All"), "in prod-eu-1", "prod-eu: All"),
            (None, "preprod-eu", "prod-eu: kustomization/webapp.apps"),
            (
                None,
                &format!("{} prod-eu", "x".repeat(200)),
                "prod-eu: kustomization/webapp.apps",
            ),
        ] {
            let mut sample = sample("prod-eu");
            sample.rendered = RenderedMessage {
                title: title.map(str::to_owned),
                text: Some(text.to_owned()),
                ..RenderedMessage::default()
            };
            assert_eq!(sample.message().title(), expected, "{title:?} {text}");
        }
    }

    #[test]
    fn a_field_does_not_replace_metadata() {
        let field = |cluster: &str, metadata: Option<&str>| {
            let mut sample = sample(cluster);
            let value = metadata.map(str::to_owned);
            sample
                .metadata
                .extend(value.map(|value| ("cluster".to_owned(), value)));
            sample.message().cluster_field()
        };
        assert_eq!(field("default", None), None);
        assert_eq!(field("prod-eu", None), Some(("cluster", "prod-eu".into())));
        assert_eq!(field("prod-eu", Some("prod-eu")), None);
        let other = Some(("tidings_cluster", "prod-eu".into()));
        assert_eq!(field("prod-eu", Some("Production")), other);
    }

    #[test]
    fn a_header_holds_any_name() {
        let header = |cluster: &str| sample(cluster).message().cluster_header();
        assert_eq!(header("default"), None);
        assert_eq!(header("prod-eu").as_deref(), Some("prod-eu"));
        assert_eq!(header("é 1%").as_deref(), Some("%C3%A9%201%25"));
    }
}
