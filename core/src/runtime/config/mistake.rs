//! Mistakes in the settings, and the origins of values.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A settings file.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// A flag, by name.
    Flag(String),
}

impl Origin {
    /// The layer: the value of the highest layer applies.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::File(_) => 0,
            Self::Variable(_) => 1,
            Self::Flag(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Variable(name) => write!(formatter, "variable {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// A mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, such as `nats.url`; empty for a whole file.
    pub key: String,
    /// The source of the value; absent if the mistake is about several values.
    pub origin: Option<Origin>,
    /// What is wrong, what is expected, and an example.
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

/// Every mistake that was found, one per line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid settings:{}", lines(.0))]
pub struct Mistakes(pub Vec<Mistake>);

fn lines(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(|mistake| format!("\n- {mistake}"))
        .collect()
}
