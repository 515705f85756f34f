//! Breaks mentions in texts that come from events, so that no event notifies anybody.
//!
//! ```text
//!  event, its metadata ──► EventTexts: mentions are broken ──┬─► standard form
//!  summary and eventMetadata of the Alert: unchanged ────────┼─► template ─► OwnMentions::only
//!  the template's own text: unchanged ───────────────────────┘
//! ```
//!
//! A template can build a mention of several parts. So its result has only mentions that its author
//! or the Alert's author wrote.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use tidings_core::model::flux;
use tidings_core::{Event, ObjectReference};

use crate::message::blocking::run_blocking;
use crate::notifier::PROVIDERS;
use crate::notifier::contract::ProviderType;
use crate::notifier::contract::mentions::Form;

/// What breaks a mention: a zero-width space.
pub const BREAK: char = '\u{200b}';

/// Stands for an event's value in a template's source. No mention contains it.
const OF_EVENT: &str = "\0";
/// A longer message is searched without blocking the other tasks of the thread.
const LONG_MESSAGE: usize = 64 << 10;

/// Finds the mentions of one provider type.
#[derive(Clone, Copy, Debug, Default)]
pub struct MentionFilter(Option<&'static Compiled>);

/// The forms of a mention as one pattern. The group with the number of a form belongs to it.
#[derive(Debug)]
struct Compiled {
    pattern: Regex,
    forms: &'static [Form],
}

/// A mention in a text.
struct Found<'a> {
    mention: &'a str,
    /// Where it is broken.
    at: usize,
}

/// The texts of a delivery. Those of the event have no mentions.
#[derive(Debug)]
pub struct EventTexts<'a> {
    /// The event. Its own metadata is unchanged, because no message shows it.
    pub event: Cow<'a, Event>,
    /// The event's object.
    pub object: ObjectReference,
    /// The metadata of the delivery.
    pub metadata: Cow<'a, BTreeMap<String, String>>,
    /// What the message may mention.
    pub own: OwnMentions,
}

/// What a message may mention: what its Alert and its template mention.
#[derive(Debug, Default)]
pub struct OwnMentions {
    filter: MentionFilter,
    /// The keys of metadata that the Alert sets.
    keys: BTreeSet<String>,
    /// Whether the event had a mention.
    pub has_broken: bool,
}

// === impl MentionFilter ===

impl MentionFilter {
    /// The filter of a provider type.
    pub fn of(row: &ProviderType) -> Self {
        static FILTERS: LazyLock<HashMap<&str, Compiled>> = LazyLock::new(|| {
            let rows = PROVIDERS.iter();
            let with_mentions = rows.filter(|row| !row.mentions.forms.is_empty());
            with_mentions
                .map(|row| (row.kind, Compiled::new(row.mentions.forms)))
                .collect()
        });
        Self(FILTERS.get(row.kind))
    }

    /// The text with its mentions broken.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        self.apply_unless(text, |_| false)
    }

    /// The mentions in a text.
    pub fn find(self, text: &str) -> Vec<&str> {
        let found = self.0.map(|compiled| compiled.find(text));
        found
            .into_iter()
            .flatten()
            .map(|found| found.mention)
            .collect()
    }

    fn apply_unless<'a>(self, text: &'a str, is_own: impl Fn(&str) -> bool) -> Cow<'a, str> {
        let found = self.0.map(|compiled| compiled.find(text));
        let (mut broken, mut done) = (String::new(), 0);
        for Found { mention, at } in found.into_iter().flatten() {
            if !is_own(mention) {
                broken.push_str(&text[done..at]);
                broken.push(BREAK);
                done = at;
            }
        }
        match done {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(broken + &text[done..]),
        }
    }
}

impl Compiled {
    fn new(forms: &'static [Form]) -> Self {
        let patterns: Vec<&str> = forms.iter().map(|form| form.pattern).collect();
        let pattern = Regex::new(&format!("(?i:{})", patterns.join("|")));
        Self {
            pattern: pattern.expect("the patterns are valid"),
            forms,
        }
    }

    /// The mentions in a text, in order. One may begin within another.
    fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Found<'a>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            loop {
                let found = self.pattern.captures_at(text, start)?;
                let (form, opening) = self.opening(&found)?;
                start = opening.end();
                let before = text[..opening.start()].bytes().next_back();
                let is_in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric());
                if is_in_word && !form.after_word {
                    continue;
                }
                let mention = &text[opening.start()..found.get(0)?.end()];
                return Some(Found {
                    // What ends a sentence is not part of a name.
                    mention: mention.trim_end_matches(['.', '-', '/']),
                    at: opening.end(),
                });
            }
        })
    }

    fn opening<'t>(&self, found: &Captures<'t>) -> Option<(&'static Form, regex::Match<'t>)> {
        let groups = found.iter().skip(1).zip(self.forms);
        groups
            .filter_map(|(group, form)| Some((form, group?)))
            .next()
    }
}

// === impl EventTexts ===

impl<'a> EventTexts<'a> {
    /// The texts of an event for a provider type. `metadata` is that of the delivery.
    pub fn new(
        row: &ProviderType,
        event: &'a Event,
        metadata: Cow<'a, BTreeMap<String, String>>,
    ) -> Self {
        match event.message.len() {
            LONG_MESSAGE.. => run_blocking(|| Self::of(row, event, metadata)),
            _ => Self::of(row, event, metadata),
        }
    }

    fn of(
        row: &ProviderType,
        event: &'a Event,
        metadata: Cow<'a, BTreeMap<String, String>>,
    ) -> Self {
        let filter = MentionFilter::of(row);
        if filter.0.is_none() {
            return Self {
                event: Cow::Borrowed(event),
                object: event.involved_object.clone().unwrap_or_default(),
                metadata,
                own: OwnMentions::default(),
            };
        }
        let is_own = |(key, value): &(&String, &String)| !flux::is_of_event(event, key, value);
        let keys = metadata.iter().filter(is_own).map(|(key, _)| key.clone());
        let keys: BTreeSet<String> = keys.collect();
        let broken = match metadata_without_mentions(filter, &metadata, &keys) {
            Cow::Owned(broken) => Some(broken),
            Cow::Borrowed(_) => None,
        };
        let event = event_without_mentions(filter, event);
        let has_broken = matches!(event, Cow::Owned(_)) || broken.is_some();
        let metadata = broken.map_or(metadata, Cow::Owned);
        Self {
            object: event.involved_object.clone().unwrap_or_default(),
            event,
            metadata,
            own: OwnMentions {
                filter,
                keys,
                has_broken,
            },
        }
    }
}

/// The event, copied only if it has a mention.
fn event_without_mentions(filter: MentionFilter, event: &Event) -> Cow<'_, Event> {
    let mut broken = Cow::Borrowed(event);
    for text in TEXTS {
        if let Cow::Owned(without) = filter.apply(text.of(event)) {
            *text.of_mut(broken.to_mut()) = without;
        }
    }
    let Some(object) = &event.involved_object else {
        return broken;
    };
    for text in TEXTS_OF_OBJECT {
        if let Cow::Owned(without) = filter.apply(text.of(object)) {
            let object = broken.to_mut().involved_object.get_or_insert_default();
            *text.of_mut(object) = without;
        }
    }
    broken
}

/// A text of a record.
struct Text<T: 'static>(fn(&T) -> &String, fn(&mut T) -> &mut String);

impl<T: 'static> Text<T> {
    fn of<'a>(&self, record: &'a T) -> &'a String {
        (self.0)(record)
    }

    fn of_mut<'a>(&self, record: &'a mut T) -> &'a mut String {
        (self.1)(record)
    }
}

/// Lists the fields of a record.
macro_rules! texts {
    ($($field:ident),*) => {
        &[$(Text(|record| &record.$field, |record| &mut record.$field)),*]
    };
}

/// The texts of an event that messages and templates show, besides its metadata.
const TEXTS: &[Text<Event>] = texts![
    cluster,
    severity,
    message,
    reason,
    reporting_controller,
    reporting_instance
];
/// The texts of its object.
const TEXTS_OF_OBJECT: &[Text<ObjectReference>] = texts![
    api_version,
    kind,
    namespace,
    name,
    uid,
    resource_version,
    field_path
];

/// The metadata, copied only if it has a mention. The keys of an event are texts, too.
fn metadata_without_mentions<'a>(
    filter: MentionFilter,
    metadata: &'a BTreeMap<String, String>,
    own: &BTreeSet<String>,
) -> Cow<'a, BTreeMap<String, String>> {
    let mut broken = Cow::Borrowed(metadata);
    for (key, value) in metadata.iter().filter(|(key, _)| !own.contains(*key)) {
        if let (Cow::Borrowed(_), Cow::Borrowed(_)) = (filter.apply(key), filter.apply(value)) {
            continue;
        }
        let all = broken.to_mut();
        all.remove(key);
        let without = [key, value].map(|text| filter.apply(text).into_owned());
        let [key, value] = without;
        all.insert(key, value);
    }
    broken
}

// === impl OwnMentions ===

impl OwnMentions {
    /// Those of a type without mentions.
    pub const NONE: &'static Self = &Self {
        filter: MentionFilter(None),
        keys: BTreeSet::new(),
        has_broken: false,
    };

    /// The result of a template with no other mentions than the template and the Alert's metadata
    /// have on their own.
    pub fn only(
        &self,
        rendered: String,
        source: &str,
        metadata: &BTreeMap<String, String>,
    ) -> String {
        if self.filter.find(&rendered).is_empty() {
            return rendered;
        }
        let own_values = self.keys.iter().filter_map(|key| metadata.get(key));
        let expanded = self.expanded(source, metadata);
        let texts = own_values.map(String::as_str).chain([&*expanded]);
        let own: BTreeSet<String> = texts
            .flat_map(|text| self.filter.find(text))
            .map(str::to_lowercase)
            .collect();
        let is_own = |mention: &str| own.contains(&mention.to_lowercase());
        self.filter.apply_unless(&rendered, is_own).into_owned()
    }

    /// The mentions that are left in a finished text.
    pub fn left_in<'a>(&self, text: &'a str) -> Vec<&'a str> {
        self.filter.find(text)
    }

    /// A template's source with the Alert's values in their places.
    fn expanded(&self, source: &str, metadata: &BTreeMap<String, String>) -> String {
        static EXPRESSION: LazyLock<Regex> = LazyLock::new(|| {
            let key = r#"(?:\.(\w+)|\[\s*['"]([^'"]+)['"]\s*\])"#;
            let value = format!(r"\{{\{{-?\s*(?:event\.)?metadata{key}\s*-?\}}\}}");
            let other = r"(?s:\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})";
            Regex::new(&format!("{value}|{other}")).expect("the pattern is valid")
        });
        let of_alert = |found: &Captures<'_>| {
            let key = found.get(1).or(found.get(2))?.as_str();
            metadata.get(key).filter(|_| self.keys.contains(key))
        };
        let expand = |found: &Captures<'_>| match of_alert(found) {
            Some(value) => value.clone(),
            // A value of the event, or a tag. The texts in it are the author's.
            None => format!("{OF_EVENT}{}{OF_EVENT}", quoted(&found[0])),
        };
        EXPRESSION.replace_all(source, expand).into_owned()
    }
}

/// The texts in quotes within an expression.
fn quoted(expression: &str) -> String {
    static QUOTED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"'([^']*)'|"([^"]*)""#).expect("the pattern is valid"));
    let texts = QUOTED.captures_iter(expression);
    let texts = texts.filter_map(|found| Some(found.get(1).or(found.get(2))?.as_str()));
    texts.collect::<Vec<_>>().join(OF_EVENT)
}

#[cfg(test)]
mod tests;
