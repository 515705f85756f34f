//! What a provider type reads from a Provider and its Secret.

/// One field or key that a type reads.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Whether it is a field or a key.
    pub place: Place,
    /// The name of the field or key.
    pub name: &'static str,
    /// Whether it must be set.
    pub demand: Demand,
    /// A short description.
    pub meaning: &'static str,
    /// Its value in the type's example; empty if the example leaves it out.
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

/// Whether a [`Need`] must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It must be set.
    Required,
    /// It or another `Either` must be set; the meaning says which.
    Either,
    /// It may be absent.
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

    /// The address of a forge's API.
    pub const fn api_address(meaning: &'static str) -> Self {
        Self::field("apiAddress", Demand::Optional, meaning, "")
    }

    /// The address of a webhook. Anyone who knows it can post, so it belongs in the Secret.
    pub const fn webhook(example: &'static str) -> Self {
        Self::key(
            "address",
            Demand::Required,
            "the webhook's address; anyone can read it in spec.address",
            example,
        )
    }
}

impl Place {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "spec",
            Self::Key => "Secret",
        }
    }
}

impl Demand {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Either => "one of",
            Self::Optional => "optional",
        }
    }
}
