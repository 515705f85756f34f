//! Shadow mode: what a router uses instead of storing deliveries, and what a worker does not do.

use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::streams::Sizing;
use tidings_core::bus::{Bus, BusError};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::ShadowOutcome;
use tidings_core::wire::ShadowRecord;
use tidings_core::{Delivery, Event};
use tidings_router::Foresee;
use tidings_rules::Rules;
use tidings_workers::http::HttpClients;
use tidings_workers::message::render::Renderer;
use tidings_workers::shadow::Shadow;

use crate::role::Context;

struct ShadowMode {
    shadow: Shadow,
    sizing: Sizing,
}

/// What the router of a process in shadow mode uses; `None` in normal mode. Creates the stream of
/// records.
///
/// # Errors
/// The links in the settings are invalid, or the stream cannot be created.
pub async fn of_router(
    context: &Context,
    bus: &Bus,
    http_clients: HttpClients,
    clusters: Arc<LiveClusters>,
) -> anyhow::Result<Option<Arc<dyn Foresee>>> {
    let settings = &context.settings;
    if !settings.shadow {
        return Ok(None);
    }
    warn("router");
    let renderer = Renderer::new(&settings.links).map_err(anyhow::Error::msg)?;
    let sizing = settings.sizing();
    let created = bus.create_shadow_stream(&sizing).await;
    created.context("cannot create the stream SHADOW")?;
    Ok(Some(Arc::new(ShadowMode {
        shadow: Shadow::new(http_clients, renderer.with_clusters(clusters)),
        sizing,
    })))
}

/// Says that a role runs in shadow mode.
pub fn warn(role: &str) {
    tracing::warn!(
        code = codes::SHADOW_MODE,
        role,
        "shadow mode, nothing is sent"
    );
}

impl Foresee for ShadowMode {
    fn foresee<'a>(
        &'a self,
        delivery: &'a Delivery,
        event: &'a Event,
        rules: &'a Rules,
    ) -> BoxFuture<'a, (ShadowOutcome, ShadowRecord)> {
        let foreseen = self.shadow.foresee(delivery, event, rules);
        foreseen
            .map(|foreseen| (foreseen.outcome, foreseen.record))
            .boxed()
    }

    fn recreate_stream<'a>(&'a self, bus: &'a Bus) -> BoxFuture<'a, Result<(), BusError>> {
        bus.create_shadow_stream(&self.sizing).boxed()
    }
}
