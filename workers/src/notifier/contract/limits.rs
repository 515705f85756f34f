//! The limits that a service documents: calls per period, and sizes of bodies, fields and ids.

use std::time::Duration;

use tidings_rules::RateLimit;

/// The rate limits of a service, as its vendor documents them.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Which calls count together.
    pub scope: LimitScope,
    /// All of them apply together.
    pub rates: &'static [RateLimit],
    /// Where the vendor documents them: a URL.
    pub source: &'static str,
}

/// Which calls count towards the same rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Calls of one Provider.
    Provider,
    /// Calls to one channel of a Provider.
    Channel,
    /// Calls with the same credentials at the same host, of all Providers.
    Account,
}

impl RateLimits {
    /// The vendor documents no limit that is the same for all customers. `Retry-After` still
    /// applies.
    pub const NONE: Self = Self {
        scope: LimitScope::Provider,
        rates: &[],
        source: "",
    };
}

impl LimitScope {
    /// The words for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::Channel => "channel",
            Self::Account => "host and credentials",
        }
    }
}

/// At most `count` calls in any `seconds` seconds.
pub const fn rate(count: u32, seconds: u64) -> RateLimit {
    RateLimit {
        count,
        per: Duration::from_secs(seconds),
    }
}

/// The longest texts that a service accepts, as its vendor documents them.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimits {
    /// Where the vendor documents them: a URL.
    pub source: &'static str,
    /// The limit of the whole body of a request.
    pub body: BodyLimit,
    /// The limits of fields and ids in the body.
    pub parts: &'static [SizeLimit],
}

/// The limit of the whole body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    /// The type does not state it. No type in the table may be so.
    Unstated,
    /// At most this size.
    AtMost(SizeUnit, usize),
    /// The vendor limits the parts only, which bound the body.
    Parts,
    /// The server announces its limit in bytes when the type connects.
    Announced,
    /// There is none, for this reason.
    Unlimited(&'static str),
}

/// The limit of one part of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimit {
    /// The part: a JSON pointer, in which `*` stands for every element. A form counts as an object.
    pub part: &'static str,
    /// How the service counts.
    pub unit: SizeUnit,
    /// The most that the service accepts.
    pub most: usize,
    /// Whether the part identifies something. A cut id ends in a hash of the whole, so that ids
    /// stay distinct.
    pub is_id: bool,
}

/// How a service counts the size of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeUnit {
    /// Bytes of UTF-8.
    Bytes,
    /// Unicode characters.
    Characters,
    /// UTF-16 code units. They are never fewer than the characters, so they also serve for services
    /// that do not state which of the two they count.
    Utf16,
    /// Elements of a list or an object.
    Items,
}

impl SizeLimits {
    /// Not stated.
    pub const UNSTATED: Self = Self {
        source: "",
        body: BodyLimit::Unstated,
        parts: &[],
    };
}

impl SizeLimit {
    /// At most `most` bytes of UTF-8.
    pub const fn bytes(part: &'static str, most: usize) -> Self {
        Self::new(part, SizeUnit::Bytes, most)
    }

    /// At most `most` Unicode characters.
    pub const fn characters(part: &'static str, most: usize) -> Self {
        Self::new(part, SizeUnit::Characters, most)
    }

    /// At most `most` UTF-16 code units.
    pub const fn utf16(part: &'static str, most: usize) -> Self {
        Self::new(part, SizeUnit::Utf16, most)
    }

    /// At most `most` elements of a list or an object.
    pub const fn items(part: &'static str, most: usize) -> Self {
        Self::new(part, SizeUnit::Items, most)
    }

    /// An id of at most `most` Unicode characters.
    pub const fn id(part: &'static str, most: usize) -> Self {
        Self {
            is_id: true,
            ..Self::characters(part, most)
        }
    }

    const fn new(part: &'static str, unit: SizeUnit, most: usize) -> Self {
        Self {
            part,
            unit,
            most,
            is_id: false,
        }
    }
}

impl SizeUnit {
    /// The size of a text; 1 in [`SizeUnit::Items`].
    pub fn size(self, text: &str) -> usize {
        match self {
            Self::Bytes => text.len(),
            Self::Characters => text.chars().count(),
            Self::Utf16 => text.encode_utf16().count(),
            Self::Items => 1,
        }
    }
}
