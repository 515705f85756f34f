//! The admin endpoint of a role: `/livez`, `/readyz` and `/metrics`, and of a router `/scaling`. It
//! has connections of its own, so it answers while the event endpoint is flooded.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runtime::health::Health;
use crate::runtime::http_server;
use crate::runtime::http_server::connections::Connections;
use crate::runtime::metrics::{Gauge, Metrics};
use crate::runtime::scaling::{Scaling, ScalingAnswer};

/// The most connections at a time: probes, Prometheus and people.
const MAX_CONNECTIONS: usize = 64;

/// Serves the admin endpoint until `stop` is canceled.
///
/// `/livez` answers 200 while the process runs. `/readyz` answers 200 while all parts that the role
/// needs work, else 503, and lists the failures. `/scaling`, if the role has it, answers what
/// waits, or 503 while the bus does not answer.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    scaling: Option<Scaling>,
    stop: CancellationToken,
) {
    let mut router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((health, metrics.clone()));
    if let Some(scaling) = scaling {
        let route = get(answer_scaling).with_state(scaling);
        router = router.route("/scaling", route);
    }
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

/// The query is parsed by hand, because it has two keys only.
async fn answer_scaling(State(scaling): State<Scaling>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let asked = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == key)?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let (status, body) = match scaling.asked().await {
        Ok(workload) => {
            let answer = ScalingAnswer::new(&workload);
            let answer = answer.including(asked("pool").as_deref(), asked("type").as_deref());
            (StatusCode::OK, serde_json::to_string(&answer))
        }
        Err(error) => {
            let error = json!({ "error": error });
            (StatusCode::SERVICE_UNAVAILABLE, Ok(error.to_string()))
        }
    };
    match body {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
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
