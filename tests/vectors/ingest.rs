//! The event endpoint: its responses, and the events that a provider receives.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_rig::{Process, Receiver, Rig, Role, alert, provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TIDINGS;
use crate::case::load;
use crate::compare::Comparison;
use crate::report::{Report, expect_equal};

/// The time limit of a response.
const LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
struct Exchange {
    name: String,
    skip: Option<String>,
    /// The name of the object of the events. It differs by case, so that no event is a duplicate.
    #[serde(default)]
    object: String,
    /// Whether it needs its own server.
    #[serde(default)]
    alone: bool,
    #[serde(default)]
    steps: Vec<Step>,
    /// The event that the provider receives; null: none.
    #[serde(default)]
    delivered: Value,
    /// Patterns for headers of the last response.
    #[serde(default)]
    expect_headers: BTreeMap<String, String>,
    /// Whether the last response must be a JSON error.
    #[serde(default)]
    expect_json_error: bool,
}

#[derive(Debug, Deserialize)]
struct Step {
    bytes: Bytes,
    method: String,
    status: u16,
    /// Whether the client closes its side of the connection after the request.
    #[serde(default)]
    half_close: bool,
}

/// A request, with abbreviated repetitions.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64 { base64: String },
    Run { repeat: String, times: usize },
    Metadata { metadata_keys: usize, value: String },
    Pieces(Vec<Bytes>),
}

impl Bytes {
    fn expanded(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64 { base64 } => STANDARD.decode(base64).expect("the recording is valid"),
            Self::Run { repeat, times } => repeat.repeat(*times).into_bytes(),
            Self::Metadata {
                metadata_keys,
                value,
            } => {
                let member = |number| {
                    format!("\"kustomize.toolkit.fluxcd.io/key-{number:05}\": \"{value}\"")
                };
                (0..*metadata_keys)
                    .map(member)
                    .collect::<Vec<_>>()
                    .join(", ")
                    .into_bytes()
            }
            Self::Pieces(pieces) => pieces.iter().flat_map(Self::expanded).collect(),
        }
    }
}

/// Replays `data/ingest.json`.
pub async fn replay() {
    let mut report = Report::default();
    let mut shared = Vec::new();
    for exchange in load::<Exchange>("ingest.json") {
        match &exchange.skip {
            Some(reason) => report.skip(reason),
            None if exchange.alone => replay_on_one_server(&[exchange], &mut report).await,
            None => shared.push(exchange),
        }
    }
    replay_on_one_server(&shared, &mut report).await;
    report.finish("ingest");
}

async fn replay_on_one_server(exchanges: &[Exchange], report: &mut Report) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let sources =
        json!([{"kind": "Kustomization", "name": "*"}, {"kind": "ConfigMap", "name": "*"}]);
    let everything = alert("all", "hook")
        .with("eventSources", sources)
        .in_namespace("flux-system");
    rig.rules().put([
        provider("hook", receiver.url()).in_namespace("flux-system"),
        everything,
    ]);
    let up = rig.run(Role::up()).await;
    let mut problems = Vec::new();
    for exchange in exchanges {
        problems.push(exchange.send(&up).await);
    }
    wait_for_all(&rig, &receiver, &up).await;
    let received: Vec<Value> = receiver
        .received()
        .iter()
        .map(|request| abbreviated(request.json()))
        .collect();
    for (exchange, mut problems) in exchanges.iter().zip(problems) {
        problems.extend(exchange.delivery_problems(&received));
        report.add(&exchange.name, &problems);
    }
}

/// Waits until a last event and everything before it is delivered.
async fn wait_for_all(rig: &Rig, receiver: &Receiver, up: &Process) {
    let mut last = tidings_rig::event("the last event");
    last["involvedObject"]["namespace"] = json!("flux-system");
    up.post(&last).await.expect("ingest responds");
    receiver.accepts("the last event").await;
    rig.drained().await;
}

impl Exchange {
    async fn send(&self, up: &Process) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            match tokio::time::timeout(LIMIT, response(up, step)).await {
                Ok(Some((status, head, body))) => {
                    problems.extend(expect_equal(
                        &format!("status of request {}", number + 1),
                        &step.status,
                        &status,
                    ));
                    if number + 1 == self.steps.len() && problems.is_empty() {
                        problems.extend(self.response_problems(step, &head, &body));
                    }
                }
                Ok(None) => problems.push(format!("request {}: no HTTP response", number + 1)),
                Err(_) => problems.push(format!(
                    "request {}: no response within {LIMIT:?}",
                    number + 1
                )),
            }
        }
        problems
    }

    fn response_problems(
        &self,
        step: &Step,
        head: &BTreeMap<String, String>,
        body: &str,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, pattern) in &self.expect_headers {
            let pattern =
                Regex::new(&format!("^(?:{pattern})$")).expect("the recorded pattern is valid");
            let value = head
                .get(&name.to_lowercase())
                .map(String::as_str)
                .unwrap_or_default();
            if !pattern.is_match(value) {
                problems.push(format!(
                    "header {name}: expected a match of {pattern}, got {value:?}"
                ));
            }
        }
        let is_error = serde_json::from_str::<serde_json::Map<String, Value>>(body)
            .is_ok_and(|object| !object.is_empty());
        if self.expect_json_error && step.method != "HEAD" && !is_error {
            problems.push(format!("body: expected a JSON error, got {body:?}"));
        }
        problems
    }

    fn delivery_problems(&self, received: &[Value]) -> Vec<String> {
        let mine = |event: &&Value| self.alone || event["involvedObject"]["name"] == *self.object;
        let events: Vec<_> = received
            .iter()
            .filter(mine)
            .filter(|event| event["message"] != "the last event")
            .collect();
        let (_, earlier) = self.steps.split_last().expect("a case has a request");
        let most = earlier.iter().filter(|step| step.status == 202).count()
            + usize::from(!self.delivered.is_null());
        if events.len() > most {
            return vec![format!(
                "expected at most {most} deliveries, got {}",
                events.len()
            )];
        }
        match events.last() {
            _ if self.delivered.is_null() => Vec::new(),
            None => vec!["no event was delivered".to_owned()],
            Some(_) if events.contains(&&self.delivered) => Vec::new(),
            Some(last) => {
                let nothing = BTreeMap::new();
                let mut comparison = Comparison::new(&nothing);
                comparison.json(&self.delivered, last, "delivered");
                comparison.problems
            }
        }
    }
}

/// Sends the bytes and reads one response: status, headers, body. The server may respond and close
/// the connection before it has read everything.
async fn response(up: &Process, step: &Step) -> Option<(u16, BTreeMap<String, String>, String)> {
    let address = up.address();
    let mut connection =
        TcpStream::connect(address.trim_start_matches("http://").trim_end_matches('/'))
            .await
            .ok()?;
    let (mut reader, mut writer) = connection.split();
    let request = step.bytes.expanded();
    let write = async {
        // An error means that the server has responded already.
        let _ = writer.write_all(&request).await;
        if step.half_close {
            let _ = writer.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    let read = async {
        while parse(&bytes, &step.method).is_none() {
            if reader
                .read_buf(&mut bytes)
                .await
                .is_ok_and(|count| count > 0)
            {
                continue;
            }
            break;
        }
    };
    tokio::select! { () = read => {}, () = write => {} }
    parse(&bytes, &step.method)
}

/// A complete response, if there is one.
fn parse(bytes: &[u8], method: &str) -> Option<(u16, BTreeMap<String, String>, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).ok()? else {
        return None;
    };
    let pair = |header: &httparse::Header<'_>| {
        (
            header.name.to_lowercase(),
            String::from_utf8_lossy(header.value).into_owned(),
        )
    };
    let head: BTreeMap<_, _> = response.headers.iter().map(pair).collect();
    let status = response.code?;
    if status == 100 {
        return parse(&bytes[length..], method);
    }
    let size = head
        .get("content-length")
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    let size = if method == "HEAD" { 0 } else { size };
    let body = bytes.get(length..length + size)?;
    Some((status, head, String::from_utf8_lossy(body).into_owned()))
}

/// An event in the form of the recordings, which abbreviate large values.
fn abbreviated(mut event: Value) -> Value {
    let size = event["message"].as_str().map_or(0, str::len);
    if size > 500 {
        event["message"] = json!(format!("<{size} bytes>"));
    }
    if let Some(metadata) = event.get_mut("metadata").and_then(Value::as_object_mut) {
        for value in metadata.values_mut() {
            let size = value.as_str().map_or(0, str::len);
            if size >= 5000 {
                *value = json!(format!("<{size} bytes>"));
            }
        }
        if metadata.len() > 50 {
            let count = metadata.len();
            event["metadata"] = json!(format!("<{count} entries>"));
        }
    }
    event
}
