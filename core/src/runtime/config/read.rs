//! Takes the values one by one, and keeps the mistakes for the end.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use config::{Value, ValueKind};
use thiserror::Error;

use super::layer::{self, Given, Origin, Sources};
use super::secret::Secret;
use super::value::Parsed;

/// A mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, such as `nats.url`; empty where a whole file is meant.
    pub key: String,
    /// Where its value came from, as far as that is known.
    pub origin: Option<Origin>,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl Mistake {
    pub(super) fn of_file(path: PathBuf, problem: String) -> Self {
        Self {
            key: String::new(),
            origin: Some(Origin::File(path)),
            problem,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (Some(origin), "") => write!(formatter, "{origin} {}", self.problem),
            (Some(origin), key) => write!(formatter, "{key} ({origin}): {}", self.problem),
            (None, key) => write!(formatter, "{key}: {}", self.problem),
        }
    }
}

/// Every mistake that was found, one a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the settings can't be used:{}", .0.iter().map(|mistake| format!("\n- {mistake}")).collect::<String>())]
pub struct Mistakes(pub Vec<Mistake>);

/// The given values, as they are taken one by one.
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
                    format!("expected {expected}, not {text:?}"),
                )
            })
            .ok()
    }

    /// Like [`Self::optional`], for a value that may not be shown.
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

    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: fn(&str) -> Parsed<T>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// A list in the file, commas elsewhere.
    pub(super) fn list(&mut self, key: &'static str, default: &[&str]) -> Vec<String> {
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
                "expected a list of names that is not empty".to_owned(),
            );
        }
        entries
    }

    /// A list whose entries have a form.
    pub(super) fn list_of<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: fn(&str) -> Parsed<T>,
    ) -> Vec<T> {
        let origin = self.given.get(key).map(|(_, origin)| origin.clone());
        let mut values = Vec::new();
        for entry in self.list(key, default) {
            match parse(&entry) {
                Ok(value) => values.push(value),
                Err(expected) => self.push(
                    key,
                    origin.clone(),
                    format!("expected {expected}, not {entry:?}"),
                ),
            }
        }
        values
    }

    /// A secret, given as it is or by a file. The higher layer wins; both in one layer are a
    /// mistake.
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
                format!("expected without {file_key}, which is given too"),
            );
        } else if text.is_empty() {
            self.push(
                key,
                Some(origin),
                "expected a text that is not empty".to_owned(),
            );
        }
        Some(Secret::new(text))
    }

    fn read_secret(&mut self, key: &'static str, path: &str, origin: Origin) -> Option<Secret> {
        let problem = match std::fs::read_to_string(path) {
            // Editors and `kubectl create secret` leave a line's end.
            Ok(text) if !text.trim_end().is_empty() => {
                return Some(Secret::new(text.trim_end().to_owned()));
            }
            Ok(_) => format!("expected a file that is not empty, unlike {path}"),
            Err(error) => format!("expected a file that can be read, unlike {path}: {error}"),
        };
        self.push(key, Some(origin), problem);
        None
    }

    /// A value that has two keys. The higher layer wins; both keys in one layer are a mistake.
    pub(super) fn either<T>(
        &mut self,
        (key, parse): (&'static str, fn(&str) -> Parsed<T>),
        (other, parse_other): (&'static str, fn(&str) -> Parsed<T>),
    ) -> Option<T> {
        let [rank, other_rank] =
            [key, other].map(|key| self.given.get(key).map(|(_, origin)| origin.rank()));
        if rank.is_some() && rank == other_rank {
            self.mistake(
                key,
                &format!("expected without {other}, which is given too"),
            );
        }
        let [first, second] = [self.optional(key, parse), self.optional(other, parse_other)];
        if other_rank > rank { second } else { first }
    }

    /// Both or none.
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
        // A value that is there and wrong is one mistake, not two.
        let reported = self
            .mistakes
            .iter()
            .any(|mistake| mistake.key.starts_with(missing));
        if has_first != has_second && !reported {
            self.mistake(missing, &format!("expected, because {given} is given"));
        }
    }

    pub(super) fn mistake(&mut self, key: &str, problem: &str) {
        self.push(key, None, problem.to_owned());
    }

    /// Reports what nobody has taken as unknown, and everything else that was wrong.
    pub(super) fn finish(mut self) -> Result<(), Mistakes> {
        for (key, (value, origin)) in std::mem::take(&mut self.given) {
            let section = format!("{key}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&section));
            match (is_section, &value.kind) {
                (true, ValueKind::Nil) => {}
                (true, _) => self.push(
                    &key,
                    Some(origin),
                    "expected keys below it, not a value".to_owned(),
                ),
                (false, _) => {
                    let siblings = self.siblings(&key);
                    self.push(
                        &key,
                        Some(origin),
                        format!("no such key; there are {siblings}"),
                    );
                }
            }
        }
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(self.mistakes))
        }
    }

    /// The known keys of the same section, or all of them where there is no such section.
    fn siblings(&self, key: &str) -> String {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let is_sibling =
            |known: &&&str| known.rsplit_once('.').map_or("", |(other, _)| other) == section;
        let siblings: Vec<&str> = self.known.iter().filter(is_sibling).copied().collect();
        if siblings.is_empty() {
            Vec::from_iter(self.known.iter().copied()).join(", ")
        } else {
            siblings.join(", ")
        }
    }

    fn take_text(&mut self, key: &'static str) -> Option<(String, Origin)> {
        let (value, origin) = self.take(key)?;
        let text = match value.kind {
            // A flag that may come but once counts by its last.
            ValueKind::Array(mut values) if matches!(origin, Origin::Flag(_)) => {
                values.pop().and_then(to_text)
            }
            _ => to_text(value),
        };
        if text.is_none() {
            self.push(
                key,
                Some(origin.clone()),
                "expected one value, not several".to_owned(),
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
