//! The layers of the settings and their order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::{ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::mistake::{Mistake, Origin};

/// The prefix of our environment variables.
const PREFIX: &str = "TIDINGS_";
/// Names the settings file if no flag does.
const FILE_VARIABLE: &str = "TIDINGS_CONFIG";

/// The sources of the settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by a flag; default: the variable `TIDINGS_CONFIG`.
    pub file: Option<PathBuf>,
    /// The variables of the process; see [`environment`].
    pub environment: Vec<(String, String)>,
    /// The flags on the command line. Repeated flags make a list.
    pub flags: Vec<Flag>,
}

/// A flag on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The name as users write it: `--nats`.
    pub name: String,
    /// The key that it sets: `nats.url`.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// The environment variables of this process that start with `TIDINGS_`.
pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Values by key, such as `nats.url`; each from the highest layer that has it.
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
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    File::from_str(&text, FileFormat::Yaml)
        .collect()
        .map_err(|error| match error {
            // Parse errors have a line and no values. The error about a root that is not a mapping
            // quotes the root, which may be a secret.
            ConfigError::FileParse { cause, .. } if !cause.is::<Box<ConfigError>>() => {
                format!("is not valid YAML: {cause}")
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

/// Kubernetes sets variables about every Service of the namespace in every pod. A Service
/// `tidings-ingest` causes `TIDINGS_INGEST_SERVICE_HOST` and `TIDINGS_INGEST_PORT_9090_TCP`, which
/// are not settings.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = name.contains("_PORT") && value.contains("://");
    is_address
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP_", "_UDP_"]
            .iter()
            .any(|part| name.contains(part))
}
