//! What a provider type needs, for people and for documents: fields of the Provider and keys of its
//! Secret.

use std::fmt::Write as _;

use crate::notifier::contract::ProviderType;

/// One field or key that a type reads.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Where it is.
    pub place: Place,
    /// Its name there.
    pub name: &'static str,
    /// Whether there must be one.
    pub demand: Demand,
    /// What it is, in a few words.
    pub meaning: &'static str,
    /// What stands for it in the type's example; empty where the example goes without.
    pub example: &'static str,
}

/// Where a [`Need`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of the Provider's `spec`.
    Field,
    /// A key of the Secret that `secretRef` names.
    Key,
}

/// Whether a type can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It can't.
    Required,
    /// It needs this or another that is `Either` too; the meaning says which.
    Either,
    /// It can.
    Optional,
}

impl Need {
    /// A field of the Provider's `spec`.
    pub const fn field(
        name: &'static str,
        demand: Demand,
        meaning: &'static str,
        example: &'static str,
    ) -> Self {
        Self {
            place: Place::Field,
            name,
            demand,
            meaning,
            example,
        }
    }

    /// A key of the Secret that `secretRef` names.
    pub const fn key(
        name: &'static str,
        demand: Demand,
        meaning: &'static str,
        example: &'static str,
    ) -> Self {
        Self {
            place: Place::Key,
            name,
            demand,
            meaning,
            example,
        }
    }

    /// The address of a webhook: who knows it can post there, so it belongs into the Secret.
    pub const fn webhook(example: &'static str) -> Self {
        Self::key(
            "address",
            Demand::Required,
            "the webhook's address; in spec.address everybody can read it",
            example,
        )
    }
}

impl Place {
    /// A word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "spec",
            Self::Key => "Secret",
        }
    }
}

impl Demand {
    /// A word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Either => "one of",
            Self::Optional => "optional",
        }
    }
}

impl ProviderType {
    /// A Provider of this type with its Secret, as YAML. Whoever puts real values in has one that
    /// works.
    pub fn example(&self) -> String {
        let name = self.kind.replace('.', "-");
        let given = |place| {
            self.needs
                .iter()
                .filter(move |need| need.place == place && !need.example.is_empty())
        };
        let mut manifest = format!(
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata:\n  name: {name}\n  namespace: apps\nspec:\n  type: {}\n",
            self.kind
        );
        for need in given(Place::Field) {
            let _ = writeln!(manifest, "  {}: {}", need.name, scalar(need.example, 4));
        }
        if given(Place::Key).next().is_none() {
            return manifest;
        }
        let _ = writeln!(manifest, "  secretRef:\n    name: {name}");
        let _ = writeln!(
            manifest,
            "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: apps\nstringData:"
        );
        for need in given(Place::Key) {
            let _ = writeln!(manifest, "  {}: {}", need.name, scalar(need.example, 4));
        }
        manifest
    }
}

/// A text as YAML: several lines as a block, what would be something else in quotes.
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
