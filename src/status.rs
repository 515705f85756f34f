//! The writer of status, with what it needs of the workers' code: whether a Provider can be used is for its type to say.

use std::sync::Arc;

use anyhow::Context;
use tidings_core::bus::Bus;
use tidings_core::config::Settings;
use tidings_core::metrics::Metrics;
use tidings_router::StatusWriter;
use tidings_router::status::finding::CheckProvider;
use tidings_rules::Live;
use tidings_workers::attempt::Notifiers;
use tidings_workers::http::Outside;

use crate::rules::Origin;

/// A writer of the status of the rules of a cluster.
///
/// # Errors
/// The system's certificates can't be read.
pub fn writer(settings: &Settings, origin: Origin, bus: Bus, rules: Arc<Live>, metrics: Metrics) -> anyhow::Result<StatusWriter> {
    let Origin { client, catalog } = origin;
    let namespace = settings.kubernetes.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    Ok(StatusWriter { client, namespace, bus, rules, catalog, check: check_provider(settings)?, metrics })
}

/// Builds the notifier as for an attempt, and sends nothing.
fn check_provider(settings: &Settings) -> anyhow::Result<Arc<CheckProvider>> {
    let outside = Outside::new(settings.worker.addresses.clone()).context("cannot read the system's certificates")?;
    let notifiers = Notifiers::new(outside);
    Ok(Arc::new(move |provider| notifiers.prepare(provider).map(drop).map_err(|failure| failure.detail)))
}
