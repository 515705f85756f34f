//! Where the text of a notification comes from, when it is the user's own.
//!
//! ```text
//!  Alert or Provider ─► Template (the text, or where it stands) ─► source ─► language ─► Program ─► title and text
//! ```

mod filters;
mod language;
mod program;

pub use program::{Escape, LONGEST_SOURCE, LONGEST_TEXT, Program, Rendered};

use tidings_core::TemplateReference;

use crate::resource::{Report, TemplateSpec};

/// A template, or the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// The text itself.
    Inline(String),
    /// A key of a ConfigMap in the same namespace, read at the attempt.
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// Its key.
        key: String,
    },
}

impl Template {
    /// As it travels in a delivery.
    pub fn reference(&self) -> TemplateReference {
        match self.clone() {
            Self::Inline(inline) => TemplateReference {
                inline,
                ..TemplateReference::default()
            },
            Self::ConfigMap { name, key } => TemplateReference {
                config_map: name,
                key,
                ..TemplateReference::default()
            },
        }
    }

    /// The one that a delivery carries.
    pub fn of(reference: &TemplateReference) -> Self {
        match reference.config_map.as_str() {
            "" => Self::Inline(reference.inline.clone()),
            name => Self::ConfigMap {
                name: name.to_owned(),
                key: reference.key.clone(),
            },
        }
    }

    /// Reads `spec.template`; exactly one of its two forms must be there. A text that can't be used
    /// is only told: its notifications go out in the standard form.
    pub fn compile(spec: Option<TemplateSpec>, report: &mut Report<'_>) -> Option<Self> {
        match spec? {
            TemplateSpec {
                inline: Some(text),
                config_map_key_ref: None,
            } => {
                if let Err(sentence) = Program::compile(&text, Escape::None) {
                    report.warn(
                        "spec.template.inline",
                        format!("{sentence}; notifications go out in the standard form"),
                    );
                }
                Some(Self::Inline(text))
            }
            TemplateSpec {
                inline: None,
                config_map_key_ref: Some(reference),
            } => Some(Self::ConfigMap {
                name: reference.name,
                key: reference.key,
            }),
            _ => {
                report.error(
                    "spec.template",
                    "must hold either inline or configMapKeyRef",
                );
                None
            }
        }
    }
}
