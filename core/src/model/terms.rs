//! Closed sets of terms that metrics, logs, tools and the docs share.
//!
//! The macro `terms!` defines a set from one table, so that the enum, the text of each term, the
//! metric label and the docs always agree.

/// A term and what it means, as the docs list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The text that users see: kebab-case, never reused for something else.
    pub text: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// Defines an enum of terms. `label` is the name of its label in metrics.
macro_rules! terms {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident in label $label:literal {
            $($variant:ident = $text:literal, $meaning:literal;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)*
        }

        impl $name {
            /// Every variant, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// Every term with its meaning, in the order of the table.
            pub const TERMS: &[$crate::model::terms::Term] =
                &[$($crate::model::terms::Term { text: $text, meaning: $meaning }),*];

            /// The text for metrics, logs and tools.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        $crate::runtime::metrics::labels::label_value!($name, $label, Self::TERMS);
    };
}

pub(crate) use terms;
