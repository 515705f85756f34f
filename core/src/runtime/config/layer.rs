//! The layers: where values come from, and which one wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use config::{ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::read::Mistake;

/// Every variable of ours begins so.
const PREFIX: &str = "TIDINGS_";
/// Names the file where no flag does.
const FILE_VARIABLE: &str = "TIDINGS_CONFIG";

/// What the settings are read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by a flag. Without one, the variable `TIDINGS_CONFIG` may name it.
    pub file: Option<PathBuf>,
    /// The variables of the process; see [`environment`].
    pub environment: Vec<(String, String)>,
    /// The flags that were given. Repeated ones make a list.
    pub flags: Vec<Flag>,
}

/// A flag that was given.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Its name as people write it: `--nats`.
    pub name: String,
    /// The key that it sets: `nats.url`.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file.
    File(PathBuf),
    /// A variable, by its name.
    Variable(String),
    /// A flag, by its name.
    Flag(String),
}

impl Origin {
    /// The higher one wins.
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

/// The variables of this process that are ours to read.
pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// The given values by key, such as `nats.url`; each from the highest layer that has it.
pub(super) type Given = BTreeMap<String, (Value, Origin)>;

pub(super) fn collect(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Given {
    let mut given = Given::new();
    let ours = |name: &str, value: &str| name.starts_with(PREFIX) && !is_service_link(name, value);
    let variables: Map<String, String> = sources
        .environment
        .iter()
        .filter(|(name, value)| ours(name, value))
        .cloned()
        .collect();
    if let Some(path) = sources
        .file
        .clone()
        .or_else(|| variables.get(FILE_VARIABLE).map(PathBuf::from))
    {
        match read_file(&path) {
            Ok(table) => flatten("", table, &mut |key, value| {
                given.insert(key, (value, Origin::File(path.clone())));
            }),
            Err(problem) => mistakes.push(Mistake::of_file(path, problem)),
        }
    }
    for (name, value) in variables {
        if name != FILE_VARIABLE {
            given.extend(read_variable(name, value));
        }
    }
    given.extend(read_flags(&sources.flags));
    given
}

fn read_file(path: &PathBuf) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"))?;
    File::from_str(&text, FileFormat::Yaml)
        .collect()
        .map_err(|error| match error {
            // The parser's errors tell a place; the one about a root that is no mapping quotes the
            // root.
            ConfigError::FileParse { cause, .. } if !cause.is::<Box<ConfigError>>() => {
                format!("can't be read as YAML: {cause}")
            }
            _ => "is not a YAML mapping of keys".to_owned(),
        })
}

fn read_variable(name: String, value: String) -> Option<(String, (Value, Origin))> {
    let source = Environment::with_prefix("TIDINGS")
        .prefix_separator("_")
        .separator("__")
        .ignore_empty(true)
        .source(Some(Map::from_iter([(name.clone(), value)])));
    let (key, value) = source.collect().ok()?.into_iter().next()?;
    Some((key, (value, Origin::Variable(name))))
}

fn read_flags(flags: &[Flag]) -> Given {
    let mut given = Given::new();
    for flag in flags {
        let (value, _) = given.entry(flag.key.clone()).or_insert_with(|| {
            (
                Value::from(Vec::<Value>::new()),
                Origin::Flag(flag.name.clone()),
            )
        });
        if let ValueKind::Array(values) = &mut value.kind {
            values.push(Value::from(flag.value.clone()));
        }
    }
    given
}

fn flatten(prefix: &str, table: Map<String, Value>, give: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value.kind {
            ValueKind::Table(table) => flatten(&key, table, give),
            _ => give(key, value),
        }
    }
}

/// Kubernetes gives every pod variables about every Service of its namespace. A Service
/// `tidings-ingest` makes `TIDINGS_INGEST_SERVICE_HOST` and `TIDINGS_INGEST_PORT_9090_TCP`, which
/// nobody wrote as settings.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = name.contains("_PORT") && value.contains("://");
    is_address
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP_", "_UDP_"]
            .iter()
            .any(|part| name.contains(part))
}
