//! The real OpenTelemetry Collector takes the traces, and writes them to a file.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, free_port, provider, tool};

use crate::TIDINGS;

/// Receives OTLP over HTTP, and writes what it receives as JSON.
fn configuration(port: u16, file: &Path) -> String {
    let file = file.display();
    format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n\
         exporters: {{file: {{path: \"{file}\", flush_interval: 100ms}}}}\n\
         service:\n\
         \x20 telemetry: {{metrics: {{level: none}}}}\n\
         \x20 pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n"
    )
}

/// The spans in the collector's file.
fn spans(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).ok());
    let requests: Vec<Value> = lines.flatten().collect();
    let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let processes = requests
        .iter()
        .flat_map(|request| each(request, "resourceSpans"));
    let scopes = processes.flat_map(|process| each(&process, "scopeSpans"));
    scopes.flat_map(|scope| each(&scope, "spans")).collect()
}

#[tokio::test]
#[ignore = "builds the OpenTelemetry Collector with Go: make test-collector"]
async fn the_opentelemetry_collector_receives_one_trace_of_an_event() {
    let Some(collector) = tool("collector.sh") else {
        return;
    };
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let (port, file) = (free_port(), rig.folder().join("spans.json"));
    let config = rig.folder().join("collector.yaml");
    std::fs::write(&config, configuration(port, &file)).unwrap();
    let mut command = tokio::process::Command::new(collector);
    command.arg("--config").arg(config).stdout(Stdio::null());
    let _collector = command.kill_on_drop(true).spawn().unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let role = Role::up().env("TIDINGS_OTLP__ENDPOINT", &endpoint);
    let up = rig.run(role).await;

    up.post(&event("for the collector")).await.unwrap();

    let named = |name: &str| {
        let found = spans(&file).into_iter().find(|span| span["name"] == name);
        found.unwrap_or_default()
    };
    let (ingest, route, deliver) = eventually("the trace is whole", async || {
        let spans = [named("ingest"), named("route"), named("deliver")];
        let [ingest, route, deliver] = spans;
        let is_whole = [&ingest, &route, &deliver]
            .iter()
            .all(|span| span.is_object());
        is_whole.then_some((ingest, route, deliver))
    })
    .await;
    assert_eq!(route["parentSpanId"], ingest["spanId"]);
    assert_eq!(deliver["parentSpanId"], route["spanId"]);
    assert_eq!(deliver["traceId"], ingest["traceId"]);
    rig.drained().await;
}
