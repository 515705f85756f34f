//! The message that a notifier sends: one event, for one alert and provider.

pub(crate) mod blocking;
mod cluster;
mod links;
pub mod mentions;
pub mod render;
pub mod repository;
pub mod revision;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod template_check;
mod template_context;

use std::collections::BTreeMap;

use tidings_core::{AlertReference, Event, ObjectReference};

use crate::message::mentions::OwnMentions;
use crate::message::render::{Link, RenderedMessage};
use crate::text::{cut_chars, cut_id};

/// The longest title or path of an object, in characters. Names in Kubernetes have up to 253.
const LONGEST_TITLE: usize = 1_024;

/// One event for one alert and provider, ready to be written in the provider's format.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The delivery's id, which is the same for every attempt.
    pub delivery_id: &'a str,
    /// The event, whose texts mention nobody. Its own metadata is as it was stored: keys have their
    /// prefixes.
    pub event: &'a Event,
    /// The object that the event is about.
    pub object: &'a ObjectReference,
    /// The combined metadata of event, object and alert, with keys without prefix.
    pub metadata: &'a BTreeMap<String, String>,
    /// The alert that selected the event.
    pub alert: &'a AlertReference,
    /// The Alert's channel, else the Provider's; may be empty.
    pub channel: &'a str,
    /// What the message may mention.
    pub own_mentions: &'a OwnMentions,
    /// The result of the user's template and links.
    pub rendered: &'a RenderedMessage,
    /// The names that the event's cluster had before it was renamed.
    pub former_clusters: &'a [String],
}

impl<'a> Message<'a> {
    /// The template's title, or kind, name and namespace of the object.
    pub fn title(&self) -> String {
        self.title_or(|| self.object_heading())
    }

    /// The template's title, or the standard title of the type, in up to 1,024 characters. It names
    /// the cluster unless that is `default`.
    pub fn title_or(&self, standard: impl FnOnce() -> String) -> String {
        let title = self.rendered.title.clone().unwrap_or_else(standard);
        cut_chars(&self.naming_cluster(title), LONGEST_TITLE)
    }

    /// The template's text, or the event's message.
    pub fn text(&self) -> &'a str {
        self.rendered.text.as_ref().unwrap_or(&self.event.message)
    }

    /// The text below the template's title, for services without a field for a title. A template
    /// that does not name the cluster is preceded by its name.
    pub fn titled_text(&self) -> String {
        match &self.rendered.title {
            Some(_) => format!("{}\n{}", self.title(), self.text()),
            None if self.is_templated() => self.naming_cluster(self.text().to_owned()),
            None => self.text().to_owned(),
        }
    }

    /// Whether the text comes from a template. The metadata is then not shown below it.
    pub fn is_templated(&self) -> bool {
        self.rendered.text.is_some()
    }

    /// The metadata to show below the text.
    pub fn shown_fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields().filter(|_| !self.is_templated())
    }

    /// The links to show.
    pub fn links(&self) -> &'a [Link] {
        &self.rendered.links
    }

    /// The links as one line of Markdown that ends in `end`; empty without links.
    pub fn markdown_links(&self, end: &str) -> String {
        match self.links() {
            [] => String::new(),
            links => {
                links
                    .iter()
                    .map(Link::markdown)
                    .collect::<Vec<_>>()
                    .join(" · ")
                    + end
            }
        }
    }

    /// Whether the event is of severity error.
    pub fn is_error(&self) -> bool {
        self.event.severity == "error"
    }

    /// `<kind>/<name>.<namespace>`, the kind in lower case: the heading of most messages.
    pub fn object_heading(&self) -> String {
        format!(
            "{}/{}.{}",
            self.object.kind.to_lowercase(),
            self.object.name,
            self.object.namespace
        )
    }

    /// `<Kind>/<namespace>/<name>`. It identifies the object, so a longer one than Kubernetes
    /// allows ends in a hash.
    pub fn object_path(&self) -> String {
        let path = format!(
            "{}/{}/{}",
            self.object.kind, self.object.namespace, self.object.name
        );
        cut_id(&path, LONGEST_TITLE)
    }

    /// The object's key at services that keep one record for each object: its uid, or
    /// `<Kind>/<namespace>/<name>`, with the cluster before it unless that is `default`. It is
    /// hashed if it exceeds the 255 characters that such services allow.
    pub fn object_key(&self) -> String {
        match self.object.uid.as_str() {
            "" => short_key(self.object_path_in_fleet()),
            uid => uid.to_owned(),
        }
    }

    /// The keys that the object had when its cluster had another name, if they contain the name.
    pub fn keys_of_former_clusters(&self) -> Vec<String> {
        if !self.object.uid.is_empty() {
            return Vec::new();
        }
        let former = self.former_clusters.iter();
        former.map(|name| short_key(self.path_in(name))).collect()
    }

    /// The key that earlier releases used for the object, if it was another: without the cluster.
    pub fn former_object_key(&self) -> Option<String> {
        let is_other = self.object.uid.is_empty() && self.cluster().is_some();
        is_other.then(|| short_key(self.object_path()))
    }

    /// The metadata: `summary` first, then by key.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let pair = |(key, value)| (str_of(key), str_of(value));
        let summary = self.metadata.get_key_value("summary").into_iter().map(pair);
        summary.chain(
            self.metadata
                .iter()
                .filter(|(key, _)| *key != "summary")
                .map(pair),
        )
    }

    /// The event's time, or that of its receipt, in seconds since 1970.
    pub fn unix_seconds(&self) -> i64 {
        self.event
            .timestamp
            .or(self.event.received_at)
            .map_or(0, |time| time.seconds)
    }

    /// The event's time, or that of its receipt, as RFC 3339 in UTC.
    pub fn rfc3339(&self) -> String {
        let time = self.event.timestamp.or(self.event.received_at);
        time.as_ref()
            .and_then(tidings_core::model::flux::rfc3339)
            .unwrap_or_default()
    }
}

/// A path as a key of at most 255 characters.
fn short_key(path: String) -> String {
    match path.chars().count() > 255 {
        true => tidings_core::model::id::digest(&[&path]),
        false => path,
    }
}

/// The pairs that have a value. Fields that an event lacks are not sent: services reject or misread
/// empty ones.
pub fn present<K, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> impl Iterator<Item = (K, V)> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.as_ref().is_empty())
}

fn str_of(text: &String) -> &str {
    text
}
