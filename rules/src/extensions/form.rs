//! How the text of an annotation becomes the value of a field.

use serde_json::{Map, Value, json};

use crate::cluster_selector::{self, ClusterSelector};

/// How the text of an annotation is read. It gives the value of the field, which is then checked as
/// if the field had been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text as it is.
    Text,
    /// Texts, separated by commas. Spaces around them do not count.
    List,
    /// Pairs `key=value`, separated by commas. Spaces around keys and values do not count.
    Map,
    /// A label selector, as `kubectl` takes it.
    Selector,
    /// A minimum severity, or several severities, separated by commas: an exact set.
    Severity,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Number,
    /// `name/key`: a key of a ConfigMap.
    Reference,
}

impl Form {
    /// What to write, for the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Text => "as the field",
            Self::List => "names, separated by commas",
            Self::Map => "`key=value`, separated by commas",
            Self::Selector => {
                "requirements, separated by commas: `KEY=VALUE`, `KEY!=VALUE`, `KEY in (A,B)`, \
                 `KEY notin (A,B)`, `KEY`, `!KEY`"
            }
            Self::Severity => "a minimum severity; or several severities, separated by commas",
            Self::Boolean => "`true` or `false`",
            Self::Number => "a whole number",
            Self::Reference => "`configmap/key`",
        }
    }

    /// Reads the text of an annotation.
    ///
    /// # Errors
    /// What to write instead. The message does not quote the text.
    pub(super) fn read(self, text: &str) -> Result<Value, &'static str> {
        match self {
            Self::Text => Ok(text.into()),
            Self::List => Ok(list(text)),
            Self::Map => map(text).ok_or("must be key=value, separated by commas, each key once"),
            Self::Selector => cluster_selector::parse(text),
            Self::Severity if text.contains(',') => Ok(list(text)),
            Self::Severity => Ok(text.trim().into()),
            Self::Boolean => match text {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err("must be true or false"),
            },
            Self::Number => text
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| "must be a whole number"),
            Self::Reference => match text.split_once('/') {
                Some((name, key)) if !name.is_empty() && !key.is_empty() && !key.contains('/') => {
                    Ok(json!({"name": name, "key": key}))
                }
                _ => Err("must be the name of a ConfigMap and a key, such as texts/short"),
            },
        }
    }

    /// Whether two values say the same. The order of a list does not count, and neither does the
    /// form of a selector.
    pub(super) fn agree(self, left: &Value, right: &Value) -> bool {
        let sorted = |value: &Value| {
            let mut names: Vec<_> = value.as_array()?.iter().map(Value::to_string).collect();
            names.sort();
            names.dedup();
            Some(names)
        };
        if self == Self::Selector {
            let selector = ClusterSelector::of_value(left);
            return selector.is_some() && selector == ClusterSelector::of_value(right);
        }
        left == right || sorted(left).is_some_and(|names| sorted(right) == Some(names))
    }
}

/// `None` if a pair has no `=`, or a key is empty or repeated.
fn map(text: &str) -> Option<Value> {
    let mut map = Map::new();
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || map.insert(key.to_owned(), value.trim().into()).is_some() {
            return None;
        }
    }
    Some(map.into())
}

fn list(text: &str) -> Value {
    text.split(',').map(str::trim).collect()
}
