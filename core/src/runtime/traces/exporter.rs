//! Exports spans: a queue, and a task that sends them by OTLP over HTTP.
//!
//! Nothing waits for the collector. What does not fit into the queue is dropped and counted.

use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prost::Message as _;
use prost::bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::runtime::config::{OtlpSettings, TRACES_PATH};
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::SpanOutcome;

/// The most spans that wait, each of about 1 KiB.
const MOST_SPANS: usize = 2_048;
/// The most spans of one request.
const MOST_AT_ONCE: usize = 512;
/// How long spans wait for others.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request is made until its spans are given up, and the first pause. It doubles.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long the last spans may take at the end of the process.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Takes the spans that ended.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<SpanData>,
    spans: Family<SpanOutcome, Counter>,
}

/// Sends spans to the collector. [`Exporter::run`] does it.
pub struct Exporter {
    queue: mpsc::Receiver<SpanData>,
    /// What the next request sends.
    gathered: Vec<SpanData>,
    resource: ResourceAttributesWithSchema,
    client: Client,
    url: Url,
    headers: HeaderMap,
    spans: Family<SpanOutcome, Counter>,
    pace: LogPace,
}

/// How one request ended.
enum Answer {
    /// The collector took the spans, except for this many.
    Accepted {
        rejected: u64,
    },
    Refused(String),
    TryAgain(String),
}

/// A queue for the spans of a process, and what sends them to `endpoint`.
pub(super) fn new(
    endpoint: &Url,
    settings: &OtlpSettings,
    resource: &Resource,
    metrics: &Metrics,
) -> Result<(Queue, Exporter), reqwest::Error> {
    let client = Client::builder()
        .redirect(Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let (sender, receiver) = mpsc::channel(MOST_SPANS);
    let spans = metrics.trace_spans_total.clone();
    let queue = Queue {
        sender,
        spans: spans.clone(),
    };
    let exporter = Exporter {
        queue: receiver,
        gathered: Vec::new(),
        resource: resource.into(),
        client,
        url: of_traces(endpoint),
        headers: settings.header_map(),
        spans,
        pace: LogPace::default(),
    };
    Ok((queue, exporter))
}

/// The address for traces, below that of the collector, as OTLP has it.
fn of_traces(endpoint: &Url) -> Url {
    let mut url = endpoint.clone();
    let path = format!("{}{TRACES_PATH}", endpoint.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.spans.get_or_create(&SpanOutcome::Dropped).inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Exporter {
    /// Sends spans until `stop`, and then what is left, within a few seconds.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _ = stop.run_until_cancelled(self.gather()).await;
            let late = async {
                stop.cancelled().await;
                sleep(LAST_WITHIN).await;
            };
            tokio::select! {
                () = self.send() => {}
                () = late => return,
            }
        }
        let _ = timeout(LAST_WITHIN, async {
            while let Ok(span) = self.queue.try_recv() {
                self.gathered.push(span);
                while self.gathered.len() < MOST_AT_ONCE
                    && let Ok(span) = self.queue.try_recv()
                {
                    self.gathered.push(span);
                }
                self.send().await;
            }
        })
        .await;
    }

    /// Gathers the spans that end within a second after the first.
    async fn gather(&mut self) {
        let (queue, gathered) = (&mut self.queue, &mut self.gathered);
        if queue.recv_many(gathered, MOST_AT_ONCE).await == 0 {
            // The tracer has the other end as long as the process lives.
            return std::future::pending().await;
        }
        let gathering = async {
            while gathered.len() < MOST_AT_ONCE {
                queue
                    .recv_many(gathered, MOST_AT_ONCE - gathered.len())
                    .await;
            }
        };
        let _ = timeout(GATHER_FOR, gathering).await;
    }

    /// Sends what is gathered. Gives up after a few attempts.
    async fn send(&mut self) {
        let spans = std::mem::take(&mut self.gathered);
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        if count == 0 {
            return;
        }
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.resource),
        };
        let body = Bytes::from(request.encode_to_vec());
        match self.post_until_answered(&body).await {
            Ok(rejected) => {
                self.pace.reset();
                self.count(SpanOutcome::Exported, count.saturating_sub(rejected));
                self.count(SpanOutcome::Failed, rejected.min(count));
            }
            Err(why) => {
                self.count(SpanOutcome::Failed, count);
                if self.pace.is_due(&why, Instant::now()) {
                    tracing::warn!(
                        code = codes::TRACES_NOT_EXPORTED,
                        origin = self.url.origin().ascii_serialization(),
                        why,
                        "collector did not take spans"
                    );
                }
            }
        }
    }

    /// How many spans the collector rejected, or why it took none. Shows no secret.
    async fn post_until_answered(&self, body: &Bytes) -> Result<u64, String> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            match self.post(body).await {
                Answer::Accepted { rejected } => return Ok(rejected),
                Answer::Refused(why) => return Err(why),
                Answer::TryAgain(why) if attempt >= ATTEMPTS => return Err(why),
                Answer::TryAgain(_) => {}
            }
            sleep(jitter(pause)).await;
            pause *= 2;
            attempt += 1;
        }
    }

    async fn post(&self, body: &Bytes) -> Answer {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(body.clone());
        match request.send().await {
            Ok(answer) => match answer.status().as_u16() {
                200..300 => Answer::Accepted {
                    rejected: rejected(answer).await,
                },
                status @ (429 | 502..=504) => Answer::TryAgain(format!("answered {status}")),
                status => Answer::Refused(format!("answered {status}")),
            },
            Err(error) if error.is_timeout() => Answer::TryAgain("no answer in time".to_owned()),
            Err(_) => Answer::TryAgain("no connection, or no answer".to_owned()),
        }
    }

    fn count(&self, outcome: SpanOutcome, count: u64) {
        self.spans.get_or_create(&outcome).inc_by(count);
    }
}

/// The number of rejected spans in an answer.
async fn rejected(mut answer: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > LONGEST_ANSWER {
            return 0;
        }
    }
    let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
    let rejected = answer.partial_success.map(|part| part.rejected_spans);
    u64::try_from(rejected.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_below_the_address_of_the_collector() {
        for (endpoint, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://host/otlp/", "https://host/otlp/v1/traces"),
        ] {
            assert_eq!(of_traces(&endpoint.parse().unwrap()).as_str(), url);
        }
    }
}
