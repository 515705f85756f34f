//! The example manifest of a provider type, generated from its needs.

use std::fmt::Write as _;

use super::ProviderType;
use super::need::Place;

impl ProviderType {
    /// A Provider of this type with its Secret, as YAML. Users replace its values by their own.
    pub fn example(&self) -> String {
        let name = self.kind.replace('.', "-");
        let given = |place| {
            self.needs
                .iter()
                .filter(move |need| need.place == place && !need.example.is_empty())
        };
        let mut manifest = format!(
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata:\n  \
             name: {name}\n  namespace: apps\nspec:\n  type: {}\n",
            self.kind
        );
        for need in given(Place::Field) {
            let _ = writeln!(manifest, "  {}: {}", need.name, scalar(need.example, 4));
        }
        if given(Place::Key).next().is_none() {
            return manifest;
        }
        let _ = write!(
            manifest,
            "  secretRef:\n    name: {name}\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  \
             name: {name}\n  namespace: apps\nstringData:\n"
        );
        for need in given(Place::Key) {
            let _ = writeln!(manifest, "  {}: {}", need.name, scalar(need.example, 4));
        }
        manifest
    }
}

/// A text as a YAML scalar: a block for several lines, and quotes if plain text would be read as
/// something else.
fn scalar(text: &str, indent: usize) -> String {
    if text.contains('\n') {
        let lines = text
            .trim_end()
            .lines()
            .map(|line| format!("\n{:indent$}{line}", ""));
        return format!("|{}", lines.collect::<String>());
    }
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.contains(": ")
        && !text.contains(" #");
    if is_plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
