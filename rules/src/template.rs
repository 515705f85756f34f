//! Where the text of a notification comes from, when it is the user's own.

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
    /// Reads `spec.template`; exactly one of its two forms must be there.
    pub fn compile(spec: Option<TemplateSpec>, report: &mut Report<'_>) -> Option<Self> {
        match spec? {
            TemplateSpec { inline: Some(text), config_map_key_ref: None } => Some(Self::Inline(text)),
            TemplateSpec { inline: None, config_map_key_ref: Some(reference) } => {
                Some(Self::ConfigMap { name: reference.name, key: reference.key })
            }
            _ => {
                report.error("spec.template", "must hold either inline or configMapKeyRef");
                None
            }
        }
    }
}
