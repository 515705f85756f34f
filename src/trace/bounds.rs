//! How much a trace may read and keep.

use std::time::Duration;

use tidings_core::bus::search::Budget;

/// The bounds of a trace, for each stream.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most messages that are read.
    messages: u64,
    /// The most bytes that are read.
    bytes: u64,
    /// The most bytes of events, deliveries, outcomes and dead letters that are kept, each.
    pub kept_bytes: usize,
    /// The most ready and parked deliveries that are read.
    deliveries: u64,
    /// Reading ends after this time.
    within: Duration,
}

impl Bounds {
    /// A tool has its process for itself.
    pub const TOOL: Self = Self {
        messages: 1_000_000,
        bytes: 512 << 20,
        kept_bytes: 32 << 20,
        deliveries: 100_000,
        within: Duration::from_secs(30),
    };
    /// The console answers while its process routes events.
    pub const CONSOLE: Self = Self {
        messages: 200_000,
        bytes: 128 << 20,
        kept_bytes: 4 << 20,
        deliveries: 20_000,
        within: Duration::from_millis(2500),
    };

    /// The budget of one stream.
    pub fn budget(&self) -> Budget {
        Budget::new(self.messages, self.bytes, self.within)
    }

    /// The budget of the deliveries, which take a request for each few of them.
    pub fn budget_of_deliveries(&self) -> Budget {
        Budget::new(self.deliveries, self.bytes, self.within)
    }
}
