//! The receiver of `up --demo`: shows in the terminal what it gets.

use anyhow::Context;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

use crate::process::Process;

/// Where `examples/rules` deliver to.
const ADDRESS: &str = "127.0.0.1:9095";

/// Listens until the process ends.
pub struct Demo;

/// Starts the receiver, and says how to send an event.
///
/// # Errors
/// Its port is taken.
pub async fn start(process: &mut Process) -> anyhow::Result<Demo> {
    let listener = TcpListener::bind(ADDRESS).await.with_context(|| {
        format!("cannot listen on {ADDRESS} for --demo: is another `tidings up --demo` running?")
    })?;
    let ending = process.ending();
    let router = Router::new().fallback(post(show));
    process.tasks().spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(ending.cancelled_owned())
            .await
    });
    if let Some(address) = process.events_address() {
        println!(
            "Tidings is up. What is delivered shows here. Send an event from another terminal:\n"
        );
        println!("  {}\n", curl(&address.to_string()));
    }
    Ok(Demo)
}

fn curl(address: &str) -> String {
    let event = r#"{"involvedObject":{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","name":"apps","namespace":"default"},"severity":"info","timestamp":"'$(date -u +%FT%TZ)'","message":"Applied revision at '$(date +%T)'","reason":"ReconciliationSucceeded","reportingController":"kustomize-controller"}"#;
    format!("curl -i http://{address}/ -d '{event}'")
}

async fn show(headers: HeaderMap, body: String) -> StatusCode {
    let id = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("-");
    let event: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["involvedObject"];
    println!(
        "delivered {id}: {} {} {}/{}: {}",
        text(&event["severity"]),
        text(&object["kind"]),
        text(&object["namespace"]),
        text(&object["name"]),
        text(&event["message"])
    );
    StatusCode::OK
}
