//! Reads the values key by key and collects all mistakes.

use std::collections::BTreeSet;

use config::{Value, ValueKind};

use super::layer::{self, Given, Sources};
use super::mistake::{Mistake, Mistakes, Origin};
use super::secret::Secret;
use super::table;
use super::value::Parsed;
use crate::model::nearest::nearest;

/// The values that no setting has taken yet, and the mistakes so far.
pub(super) struct Reader {
    given: Given,
    known: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut mistakes = Vec::new();
        let given = layer::collect(sources, &mut mistakes);
        Self {
            given,
            known: BTreeSet::new(),
            mistakes,
        }
    }

    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let (text, origin) = self.take_text(key)?;
        parse(&text)
            .map_err(|expected| {
                self.push(
                    key,
                    Some(origin),
                    format!("expected {expected}, got {text:?}"),
                )
            })
            .ok()
    }

    /// Like [`Self::optional`], for a value that errors must not show.
    pub(super) fn optional_secret<T>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let (text, origin) = self.take_text(key)?;
        parse(&text)
            .map_err(|expected| self.push(key, Some(origin), format!("expected {expected}")))
            .ok()
    }

    /// A setting whose default is in the table of settings.
    pub(super) fn value<T>(&mut self, key: &'static str, parse: fn(&str) -> Parsed<T>) -> T {
        self.optional(key, parse).unwrap_or_else(|| {
            let default = table::default_of(key).and_then(|text| parse(text).ok());
            default.expect("a test parses every default of the table")
        })
    }

    /// A list of texts whose default is in the table of settings.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        self.list_of(key, |entry| Ok(entry.to_owned()))
    }

    /// A list whose default is in the table of settings.
    pub(super) fn list_of<T>(&mut self, key: &'static str, parse: fn(&str) -> Parsed<T>) -> Vec<T> {
        let default = Vec::from_iter(
            table::default_of(key)
                .into_iter()
                .flat_map(|text| text.split(',')),
        );
        self.list_or(key, &default, parse)
    }

    /// The entries of a list: a list in the file, comma-separated in variables.
    fn entries(&mut self, key: &'static str, default: &[&str]) -> Vec<String> {
        let Some((value, origin)) = self.take(key) else {
            return default.iter().map(|&text| text.to_owned()).collect();
        };
        let texts: Option<Vec<String>> = match value.kind {
            ValueKind::Array(values) => values.into_iter().map(to_text).collect(),
            _ => to_text(value).map(|text| vec![text]),
        };
        let split = texts.iter().flatten().flat_map(|text| text.split(','));
        let entries: Vec<String> = split
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect();
        if texts.is_none() || (entries.is_empty() && !default.is_empty()) {
            self.push(
                key,
                Some(origin),
                "expected a list with at least one name, such as a,b".to_owned(),
            );
        }
        entries
    }

    /// A list with a default that the table only describes.
    pub(super) fn list_or<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: fn(&str) -> Parsed<T>,
    ) -> Vec<T> {
        let origin = self.given.get(key).map(|(_, origin)| origin.clone());
        let mut values = Vec::new();
        for entry in self.entries(key, default) {
            match parse(&entry) {
                Ok(value) => values.push(value),
                Err(expected) => self.push(
                    key,
                    origin.clone(),
                    format!("expected {expected}, got {entry:?}"),
                ),
            }
        }
        values
    }

    /// A secret by value or by file. The higher layer wins; both in one layer are a mistake.
    pub(super) fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let (text, file) = (self.take_text(key), self.take_text(file_key));
        let [rank, file_rank] =
            [&text, &file].map(|given| given.as_ref().map(|(_, origin)| origin.rank()));
        if file_rank > rank {
            return file.and_then(|(path, origin)| self.read_secret(file_key, &path, origin));
        }
        let (text, origin) = text?;
        if file_rank == rank {
            self.push(
                key,
                Some(origin),
                format!("set either {key} or {file_key}, not both"),
            );
        } else if text.is_empty() {
            self.push(
                key,
                Some(origin),
                "expected a value that is not empty".to_owned(),
            );
        }
        Some(Secret::new(text))
    }

    fn read_secret(&mut self, key: &'static str, path: &str, origin: Origin) -> Option<Secret> {
        let problem = match std::fs::read_to_string(path) {
            // Editors and `kubectl create secret` append a line break.
            Ok(text) if !text.trim_end().is_empty() => {
                return Some(Secret::new(text.trim_end().to_owned()));
            }
            Ok(_) => format!("file {path:?} is empty; write the secret to it"),
            Err(error) => format!("file {path:?} cannot be read: {error}"),
        };
        self.push(key, Some(origin), problem);
        None
    }

    /// A setting with two keys. The higher layer wins; both keys in one layer are a mistake.
    pub(super) fn either<T>(
        &mut self,
        (key, parse): (&'static str, fn(&str) -> Parsed<T>),
        (other, parse_other): (&'static str, fn(&str) -> Parsed<T>),
    ) -> Option<T> {
        let [rank, other_rank] =
            [key, other].map(|key| self.given.get(key).map(|(_, origin)| origin.rank()));
        if rank.is_some() && rank == other_rank {
            self.mistake(key, &format!("set either {key} or {other}, not both"));
        }
        let [first, second] = [self.optional(key, parse), self.optional(other, parse_other)];
        if other_rank > rank { second } else { first }
    }

    /// The layer that sets a key; a higher layer is greater.
    pub(super) fn rank(&self, key: &str) -> Option<u8> {
        self.given.get(key).map(|(_, origin)| origin.rank())
    }

    /// Requires both keys or neither.
    pub(super) fn pair(
        &mut self,
        first: &'static str,
        second: &'static str,
        has_first: bool,
        has_second: bool,
    ) {
        let (given, missing) = if has_first {
            (first, second)
        } else {
            (second, first)
        };
        // An invalid value is reported once, not also as missing.
        let reported = self
            .mistakes
            .iter()
            .any(|mistake| mistake.key.starts_with(missing));
        if has_first != has_second && !reported {
            self.mistake(missing, &format!("required, because {given} is set"));
        }
    }

    /// Every key that was read so far, sorted.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        self.known.iter().copied().collect()
    }

    pub(super) fn mistake(&mut self, key: &str, problem: &str) {
        self.push(key, None, problem.to_owned());
    }

    /// Reports unknown keys and all other mistakes.
    pub(super) fn finish(mut self) -> Result<(), Mistakes> {
        for (key, (value, origin)) in std::mem::take(&mut self.given) {
            let section = format!("{key}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&section));
            match (is_section, &value.kind) {
                (true, ValueKind::Nil) => {}
                (true, _) => self.push(
                    &key,
                    Some(origin),
                    "expected a section with keys, got a value".to_owned(),
                ),
                (false, _) => {
                    let problem = format!("unknown key; {}", self.instead(&key));
                    self.push(&key, Some(origin), problem);
                }
            }
        }
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(self.mistakes))
        }
    }

    /// The most similar key, or the keys of the same section, or all sections if that is unknown.
    fn instead(&self, key: &str) -> String {
        if let Some(near) = nearest(key, self.known.iter().copied()) {
            return format!("did you mean {near}?");
        }
        let known = || self.known.iter().copied();
        let mut names: Vec<_> = known().filter(|it| section(it) == section(key)).collect();
        if names.is_empty() {
            names = known().filter_map(|it| it.split('.').next()).collect();
            names.dedup();
        }
        format!("expected one of {}", names.join(", "))
    }

    fn take_text(&mut self, key: &'static str) -> Option<(String, Origin)> {
        let (value, origin) = self.take(key)?;
        let text = match value.kind {
            // The last of repeated flags applies.
            ValueKind::Array(mut values) if matches!(origin, Origin::Flag(_)) => {
                values.pop().and_then(to_text)
            }
            _ => to_text(value),
        };
        if text.is_none() {
            self.push(
                key,
                Some(origin.clone()),
                "expected one value, got a list".to_owned(),
            );
        }
        Some((text?, origin))
    }

    fn take(&mut self, key: &'static str) -> Option<(Value, Origin)> {
        self.known.insert(key);
        self.given
            .remove(key)
            .filter(|(value, _)| !matches!(value.kind, ValueKind::Nil))
    }

    fn push(&mut self, key: &str, origin: Option<Origin>, problem: String) {
        self.mistakes.push(Mistake {
            key: key.to_owned(),
            origin,
            problem,
        });
    }
}

fn to_text(value: Value) -> Option<String> {
    value.into_string().ok()
}

/// The part of a key before its last dot.
fn section(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}
