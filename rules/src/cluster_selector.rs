//! Selects clusters by the labels that the hub gives them, as Kubernetes selects objects.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::alert::{is_label, is_label_key};
use crate::report::Report;
use crate::resource::{ClusterSelectorSpec, RequirementSpec};

pub(crate) use text::parse;

/// The field of the Alert.
const FIELD: &str = "spec.clusterSelector";
/// The most requirements of a selector, and the most values of one of them.
const MOST: usize = 100;
/// The largest selector, as JSON in bytes. It fits into a record of the bucket `extensions`.
const MAX_BYTES: usize = 16 << 10;

/// Requirements on the labels of a cluster. All of them must match. Without requirements, every
/// cluster matches, as in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSelector(BTreeSet<Requirement>);

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    In(BTreeSet<String>),
    /// Also matches a cluster without the label.
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl ClusterSelector {
    /// Compiles a selector. Problems go to the report; an error in it rejects the Alert.
    pub(crate) fn compile(spec: &ClusterSelectorSpec, report: &mut Report<'_>) -> Self {
        let expressions = spec.match_expressions.iter().flatten();
        let labels = spec.match_labels.iter().flatten();
        let number = expressions.clone().count() + labels.clone().count();
        if number > MOST {
            let message = format!("has {number} requirements; use at most {MOST}");
            report.error(FIELD, message);
        }
        let mut requirements = BTreeSet::new();
        for (key, value) in labels {
            if !is_label(key, value) {
                let message = format!("the label {key}={value} is invalid; correct it");
                report.error(&format!("{FIELD}.matchLabels"), message);
            }
            requirements.insert(Requirement {
                key: key.clone(),
                operator: Operator::In([value.clone()].into()),
            });
        }
        for (position, expression) in expressions.enumerate() {
            let field = format!("{FIELD}.matchExpressions[{position}]");
            requirements.extend(requirement(expression, &field, report));
        }
        let selector = Self(requirements);
        if selector.0.is_empty() {
            report.warn(
                FIELD,
                "has no requirements, so that every cluster matches; add one, or remove the field",
            );
        }
        let bytes = selector.to_string().len();
        if bytes > MAX_BYTES {
            let message = format!("has {bytes} bytes; use at most {MAX_BYTES}");
            report.error(FIELD, message);
        }
        selector
    }

    /// Whether a cluster with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Reads a selector as [`fmt::Display`] writes it; `None` if the text is something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        Self::of_value(&parse(text).ok()?)
    }

    /// The selector in a manifest, without checks; `None` if it is no selector.
    pub(crate) fn of_value(value: &Value) -> Option<Self> {
        let spec: ClusterSelectorSpec = serde_json::from_value(value.clone()).ok()?;
        let labels = spec.match_labels.into_iter().flatten();
        let labels = labels.map(|(key, value)| {
            let operator = Operator::In([value].into());
            Some(Requirement { key, operator })
        });
        let expressions = spec.match_expressions.into_iter().flatten();
        let expressions = expressions.map(|expression| {
            let operator = operator(&expression)?;
            let key = expression.key;
            Some(Requirement { key, operator })
        });
        labels.chain(expressions).collect::<Option<_>>().map(Self)
    }
}

/// Writes the selector as `kubectl --selector` reads it.
impl fmt::Display for ClusterSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |values: &BTreeSet<String>| {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            values.join(",")
        };
        for (position, Requirement { key, operator }) in self.0.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            match operator {
                Operator::In(values) if values.len() == 1 => {
                    write!(formatter, "{key}={}", join(values))?;
                }
                Operator::In(values) => write!(formatter, "{key} in ({})", join(values))?,
                Operator::NotIn(values) => write!(formatter, "{key} notin ({})", join(values))?,
                Operator::Exists => formatter.write_str(key)?,
                Operator::DoesNotExist => write!(formatter, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn operator(expression: &RequirementSpec) -> Option<Operator> {
    let values = expression.values.iter().flatten().cloned().collect();
    match expression.operator.as_str() {
        "In" => Some(Operator::In(values)),
        "NotIn" => Some(Operator::NotIn(values)),
        "Exists" => Some(Operator::Exists),
        "DoesNotExist" => Some(Operator::DoesNotExist),
        _ => None,
    }
}

/// Compiles an entry of `matchExpressions`, with the checks of Kubernetes.
fn requirement(
    expression: &RequirementSpec,
    field: &str,
    report: &mut Report<'_>,
) -> Option<Requirement> {
    let key = expression.key.clone();
    if !is_label_key(&key) {
        let message = format!("\"{key}\" is not the key of a label; correct it");
        report.error(&format!("{field}.key"), message);
    }
    let Some(operator) = operator(expression) else {
        let operator = &expression.operator;
        let message =
            format!("\"{operator}\" is not supported; use In, NotIn, Exists or DoesNotExist");
        report.error(&format!("{field}.operator"), message);
        return None;
    };
    let values = format!("{field}.values");
    match &operator {
        Operator::In(given) | Operator::NotIn(given) => {
            if given.is_empty() || given.len() > MOST {
                report.error(&values, format!("must have 1 to {MOST} values"));
            }
            for value in given.iter().filter(|value| !is_label(&key, value)) {
                report.error(&values, format!("\"{value}\" is not the value of a label"));
            }
        }
        Operator::Exists | Operator::DoesNotExist => {
            if expression.values.iter().flatten().next().is_some() {
                let operator = &expression.operator;
                report.error(
                    &values,
                    format!("must be empty for {operator}; remove them"),
                );
            }
        }
    }
    Some(Requirement { key, operator })
}

#[cfg(test)]
mod tests;
