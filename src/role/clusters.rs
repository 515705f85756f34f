//! The clusters of the fleet, for the roles that use what the hub knows of them.

use std::sync::Arc;

use tidings_core::bus::Bus;
use tidings_core::bus::live_clusters::LiveClusters;

use crate::role::Context;

/// Starts to follow the bucket `clusters`. A router pulls nothing before it was read
/// once.
pub fn start(context: &Context, bus: &Bus) -> Arc<LiveClusters> {
    let check = context.health.optional_check("clusters");
    LiveClusters::start(bus, check, context.stop.holding.clone())
}
