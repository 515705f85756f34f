//! The limits that a service documents: calls per period, and sizes of texts.

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

/// The longest text that a service accepts in one part of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimit {
    /// The part: a JSON pointer, the name of a form field, or empty for the whole body.
    pub part: &'static str,
    /// How the service counts.
    pub unit: SizeUnit,
    /// The most that the service accepts.
    pub most: usize,
}

/// How a service counts the size of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeUnit {
    /// Bytes of UTF-8.
    Bytes,
    /// Unicode characters.
    Characters,
    /// UTF-16 code units.
    Utf16,
}

impl SizeLimit {
    /// At most `most` bytes of UTF-8.
    pub const fn bytes(part: &'static str, most: usize) -> Self {
        let unit = SizeUnit::Bytes;
        Self { part, unit, most }
    }

    /// At most `most` Unicode characters.
    pub const fn characters(part: &'static str, most: usize) -> Self {
        let unit = SizeUnit::Characters;
        Self { part, unit, most }
    }

    /// At most `most` UTF-16 code units.
    pub const fn utf16(part: &'static str, most: usize) -> Self {
        let unit = SizeUnit::Utf16;
        Self { part, unit, most }
    }
}

impl SizeUnit {
    /// The size of a text.
    pub fn size(self, text: &str) -> usize {
        match self {
            Self::Bytes => text.len(),
            Self::Characters => text.chars().count(),
            Self::Utf16 => text.encode_utf16().count(),
        }
    }
}
