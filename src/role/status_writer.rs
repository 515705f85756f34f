//! The writer of status, with what it needs of the workers' code: whether a Provider can be used is
//! for its type to say.

use std::sync::Arc;

use tidings_core::bus::Bus;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::metrics::Metrics;
use tidings_router::StatusWriter;
use tidings_router::status::ready_condition::CheckProvider;
use tidings_rules::LiveRules;
use tidings_workers::attempt::Notifiers;
use tidings_workers::http::HttpClients;

use crate::role::rules::Origin;

/// A writer of the status of the rules of a cluster.
pub fn writer(
    settings: &Settings,
    origin: Origin,
    http_clients: HttpClients,
    bus: Bus,
    rules: Arc<LiveRules>,
    metrics: Metrics,
) -> StatusWriter {
    let Origin { client, catalog } = origin;
    let namespace = settings
        .kubernetes
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    StatusWriter {
        client,
        namespace,
        bus,
        rules,
        catalog,
        check: check_provider(http_clients),
        metrics,
    }
}

/// Builds the notifier as for an attempt, and sends nothing.
fn check_provider(http_clients: HttpClients) -> Arc<CheckProvider> {
    let notifiers = Notifiers::new(http_clients);
    Arc::new(move |provider| {
        notifiers
            .prepare(provider)
            .map(drop)
            .map_err(|failure| failure.detail)
    })
}
