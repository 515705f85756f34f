//! The demo receiver of `up --demo`, which prints every delivery to the terminal.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

use crate::command::tool::{print_line, write_all};
use crate::process::Process;

/// The address that the Providers in `examples/rules` use.
const ADDRESS: &str = "127.0.0.1:9095";

/// Starts the receiver, and prints a command that sends an event to the address `events`, unless
/// the log is JSON for machines.
///
/// # Errors
/// The port is in use.
pub async fn start(process: &mut Process, events: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(ADDRESS).await.with_context(|| {
        format!("cannot listen on {ADDRESS} for --demo: is another `tidings up --demo` running?")
    })?;
    process.allow_own_receiver(listener.local_addr()?);
    let (tasks, stop) = process.servers();
    let router = Router::new().fallback(post(print_delivery));
    tasks.spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    });
    if process.logs_text() {
        let hint = "Tidings is up and prints deliveries here. Send an event from another terminal:";
        write_all(format!("{hint}\n\n  {}\n\n", curl(events)).as_bytes())?;
    }
    Ok(())
}

fn curl(events: SocketAddr) -> String {
    let event = concat!(
        r#"{"involvedObject":{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","#,
        r#""kind":"Kustomization","name":"apps","namespace":"default"},"severity":"info","#,
        r#""timestamp":"'$(date -u +%FT%TZ)'","message":"Applied revision at '$(date +%T)'","#,
        r#""reason":"ReconciliationSucceeded","reportingController":"kustomize-controller"}"#,
    );
    format!("curl -i http://{events}/ -d '{event}'")
}

async fn print_delivery(headers: HeaderMap, body: String) -> StatusCode {
    let id = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("-");
    let event: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["involvedObject"];
    let line = format!(
        "delivered {id}: {} {} {}/{}: {}",
        text(&event["severity"]),
        text(&object["kind"]),
        text(&object["namespace"]),
        text(&object["name"]),
        text(&event["message"])
    );
    // A closed pipe makes no difference to the delivery.
    let _ = print_line(&line);
    StatusCode::OK
}
