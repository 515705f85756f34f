//! What is wrong with what users wrote: a sentence, and where to look.

use std::fmt;

/// Whether an object is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object, or the file, is refused; what was in force for it before stays.
    Error,
    /// It is in force, and does perhaps not what was meant.
    Warning,
}

/// One thing that is wrong. It never holds a value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named; nothing where the rules come from a cluster.
    pub file: Option<String>,
    /// The line of the field, else of the object, counted from 1.
    pub line: Option<u64>,
    /// `Kind namespace/name`.
    pub object: Option<String>,
    /// The field, such as `spec.eventSources[1].name`.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub sentence: String,
    /// Whether the object is refused.
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
        formatter.write_str(&self.sentence)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_to_look() {
        let problem = Problem {
            file: Some("a.yaml".into()),
            line: Some(7),
            object: Some("Alert apps/a".into()),
            field: Some("spec.summary".into()),
            sentence: "is too long".into(),
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
