//! Message templates of Alerts and Providers.
//!
//! ```text
//!  spec.template ─► Template (inline or ConfigMap) ─► source ─► Program ─► title and text
//! ```

mod filters;
mod language;
mod output;
mod program;

pub use output::{Escape, MAX_TEXT_BYTES};
pub use program::{MAX_SOURCE_BYTES, Program, Rendered};

use tidings_core::TemplateReference;

use crate::report::Report;
use crate::resource::TemplateSpec;

/// A template, or a reference to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// The source of the template.
    Inline(String),
    /// A key of a ConfigMap in the same namespace, which is read at each attempt.
    ConfigMap {
        /// The name of the ConfigMap.
        name: String,
        /// The key.
        key: String,
    },
}

impl Template {
    /// Converts to the form in a delivery.
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

    /// Converts from the form in a delivery.
    pub fn of(reference: &TemplateReference) -> Self {
        match reference.config_map.as_str() {
            "" => Self::Inline(reference.inline.clone()),
            name => Self::ConfigMap {
                name: name.to_owned(),
                key: reference.key.clone(),
            },
        }
    }

    /// Compiles `spec.template`. An invalid inline template does not reject the object, because
    /// messages are then sent in the standard form.
    pub fn compile(spec: Option<TemplateSpec>, report: &mut Report<'_>) -> Option<Self> {
        match spec? {
            TemplateSpec {
                inline: Some(text),
                config_map_key_ref: None,
            } => {
                if let Err(message) = Program::compile(&text, Escape::None) {
                    report.fault(
                        "spec.template.inline",
                        format!("{message}; messages are sent in the standard form"),
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
                    "exactly one of inline and configMapKeyRef must be set",
                );
                None
            }
        }
    }
}
