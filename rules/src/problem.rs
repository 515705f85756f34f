//! Problems in rules: where and what.

use std::fmt;

/// Whether a problem rejects the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object or the file is rejected. Its last good state stays in effect.
    Error,
    /// The object is in effect, but it or a part of it cannot work, for example because a Secret
    /// does not exist.
    Fault,
    /// The object is in effect, but may not do what its author expects.
    Warning,
}

impl Severity {
    /// `error` or `warning`. A fault is an error that rejects nothing.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error | Self::Fault => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem in rules. It never contains a value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// The path of the file; `None` if the rules come from a cluster.
    pub file: Option<String>,
    /// The line of the field or of the object, starting at 1.
    pub line: Option<u64>,
    /// `Kind namespace/name`.
    pub object: Option<String>,
    /// The path of the field, such as `spec.eventSources[1].name`.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether the problem rejects the object.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(formatter, "{file}:{line}: ")?,
            (Some(file), None) => write!(formatter, "{file}: ")?,
            (None, _) => {}
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(formatter, "{part}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_file_line_object_and_field() {
        let problem = Problem {
            file: Some("a.yaml".into()),
            line: Some(7),
            object: Some("Alert apps/a".into()),
            field: Some("spec.summary".into()),
            message: "is too long".into(),
            severity: Severity::Error,
        };
        assert_eq!(
            problem.to_string(),
            "a.yaml:7: Alert apps/a: spec.summary: is too long"
        );
        let bare = Problem {
            file: None,
            object: None,
            field: None,
            ..problem
        };
        assert_eq!(bare.to_string(), "is too long");
    }
}
