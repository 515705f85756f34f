//! The admin endpoint of a role: `/livez`, `/readyz` and `/metrics`. It has connections of its own,
//! so it answers while the event endpoint is flooded.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runtime::health::Health;
use crate::runtime::http_server;
use crate::runtime::http_server::connections::Connections;
use crate::runtime::metrics::{Gauge, Metrics};

/// The most connections at a time: probes, Prometheus and people.
const MAX_CONNECTIONS: usize = 64;

/// Serves the admin endpoint until `stop` is canceled.
///
/// `/livez` answers 200 while the process runs. `/readyz` answers 200 while all parts that the role
/// needs work, else 503, and lists the failures.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((health, metrics.clone()));
    let connections = Connections::new(MAX_CONNECTIONS, Gauge::default());
    http_server::serve(listener, router, connections, metrics, stop).await;
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> Response {
    let (failures, warnings) = (without_repeats(health.failures()), health.warnings());
    let lines: String = failures
        .iter()
        .chain(&warnings)
        .map(|(part, trouble)| format!("{part}: {trouble}\n"))
        .collect();
    if failures.is_empty() {
        return format!("ok\n{lines}").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

/// Without the parts that only repeat what the part `bus` says: while NATS is down, every consumer
/// is.
fn without_repeats(mut failures: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if let Some(bus) = failures.get("bus").cloned() {
        failures.retain(|part, trouble| part == "bus" || *trouble != bus);
    }
    failures
}

async fn render(State((_, metrics)): State<(Health, Metrics)>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outage_is_one_line() {
        let failures = |parts: &[(&str, &str)]| {
            let owned = parts
                .iter()
                .map(|(part, trouble)| (part.to_string(), trouble.to_string()));
            BTreeMap::from_iter(owned)
        };
        let all = failures(&[
            ("bus", "not connected"),
            ("pull default-slack", "not connected"),
            ("pull router", "paused"),
        ]);
        let shown = failures(&[("bus", "not connected"), ("pull router", "paused")]);
        assert_eq!(without_repeats(all), shown);
        let alone = failures(&[("pull router", "not connected")]);
        assert_eq!(without_repeats(alone.clone()), alone);
    }
}
