//! Traces: the spans of an event, as a collector of OTLP receives them.

mod collector;
mod real_collector;

use futures::{StreamExt, stream};
use serde_json::json;
use tidings_core::Message as _;
use tidings_core::wire::Outcome;
use tidings_rig::{
    Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider, secret,
};

use self::collector::{Collector, Exported, named};
use crate::TIDINGS;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";
/// Texts that no span may hold.
const MESSAGE: &str = "the text of the event";
const TOKEN: &str = "hunter2-of-the-provider";
const PASSWORD: &str = "hunter2-of-the-collector";

/// Posts an event with a trace context, and returns the status.
async fn post(ingest: &Process, message: &str, parent: &str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("the client's settings are valid");
    let request = client
        .post(ingest.address())
        .header("content-type", "application/json")
        .header("traceparent", parent);
    let sent = request.body(event(message).to_string()).send().await;
    sent.expect("ingest responds").status().as_u16()
}

fn sampled() -> String {
    format!("00-{TRACE}-{SENDER}-01")
}

/// Asserts that each attempt is a child of the route, and that of the post.
fn lead_from_the_post(spans: &[Exported]) {
    let (ingest, route) = (named(spans, "ingest"), named(spans, "route"));
    let attempts = named(spans, "deliver");
    assert!(!attempts.is_empty(), "{spans:#?}");
    assert_eq!((ingest.len(), route.len()), (1, 1), "{spans:#?}");
    assert_eq!(route[0].parent, ingest[0].id);
    for attempt in attempts {
        assert_eq!(attempt.parent, route[0].id);
    }
    assert!(spans.iter().all(|span| span.trace == ingest[0].trace));
}

#[tokio::test]
async fn one_trace_leads_from_the_post_to_the_answer_across_processes() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::start().await;
    rig.rules().put([
        secret(
            "hook",
            json!({"token": TOKEN, "address": format!("{}?key={TOKEN}", receiver.url())}),
        ),
        provider("hook", receiver.url()).with("secretRef", json!({"name": "hook"})),
        alert("all", "hook"),
    ]);
    let traced = |role| {
        collector.traced(role).env(
            "TIDINGS_OTLP__HEADERS",
            &format!("authorization=Bearer%20{PASSWORD}"),
        )
    };
    let [ingest, _router, worker] = rig
        .run_all([Role::ingest(), Role::router(), Role::worker()].map(traced))
        .await;

    assert_eq!(post(&ingest, MESSAGE, &sampled()).await, 202);
    receiver.receives(1).await;
    let spans = collector.has("deliver", 1).await;

    lead_from_the_post(&spans);
    let ingest = named(&spans, "ingest")[0];
    assert_eq!(
        (ingest.trace.as_str(), ingest.parent.as_str()),
        (TRACE, SENDER)
    );
    assert_eq!(ingest.attribute("http.response.status_code"), "202");
    assert_eq!(ingest.resource("tidings.role"), "ingest");
    let deliver = named(&spans, "deliver")[0];
    assert_eq!(deliver.attribute("http.response.status_code"), "200");
    assert_eq!(deliver.attribute("tidings.outcome"), "delivered");
    assert_eq!(
        deliver.attribute("messaging.destination.name"),
        "DELIVERIES"
    );
    assert_eq!(deliver.resource("tidings.role"), "worker");
    let id = ingest.attribute("tidings.event.id");
    assert!(
        spans
            .iter()
            .all(|span| span.attribute("tidings.event.id") == id)
    );

    // The service gets the same request as without traces.
    let request = &receiver.received()[0];
    assert_eq!(request.header("traceparent"), None);
    for request in collector.requests() {
        let authorization = request.header("authorization");
        assert_eq!(authorization, Some(format!("Bearer {PASSWORD}").as_str()));
        let bytes = String::from_utf8_lossy(&request.body).into_owned();
        let address = receiver.url().trim_start_matches("http://");
        for text in [MESSAGE, TOKEN, PASSWORD, address] {
            assert!(!bytes.contains(text), "a span holds {text:?}");
        }
    }
    assert_outcome_carries(&rig, deliver).await;
    // The bucket of the latency names the trace.
    let exemplar = format!("# {{trace_id=\"{TRACE}\"}}");
    assert!(worker.metrics().await.contains(&exemplar));
    eventually("the spans are counted", async || {
        let exported = worker.metric("tidings_trace_spans_total", "exported").await;
        (exported >= 1.0).then_some(())
    })
    .await;
}

/// Asserts that the outcome on the bus carries the trace of its attempt.
async fn assert_outcome_carries(rig: &Rig, attempt: &Exported) {
    let stream = rig.jetstream().await.get_stream("OUTCOMES").await;
    let stream = stream.expect("the roles created the stream");
    let outcome = eventually("there is an outcome", async || {
        stream.get_raw_message(1).await.ok()
    })
    .await;
    let carried = outcome.headers.get("traceparent").map(ToString::to_string);
    assert_eq!(carried, Some(format!("00-{TRACE}-{}-01", attempt.id)));
    let outcome = Outcome::decode(outcome.payload).expect("OUTCOMES holds outcomes");
    let delivery = attempt.attribute("tidings.delivery.id");
    assert_eq!(delivery, outcome.delivery_id);
}

#[tokio::test]
async fn every_attempt_of_a_delivery_is_a_child_of_its_route() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::script([Reply::Status(503), Reply::RetryAfter(429, 1)]).await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig.run(collector.traced(Role::up())).await;

    up.post(&event("persistent")).await.unwrap();
    let spans = collector.has("deliver", 3).await;

    lead_from_the_post(&spans);
    let attempts = named(&spans, "deliver");
    for (number, status, outcome, error) in [
        ("1", "503", "retrying", "server-error"),
        ("2", "429", "retrying", "rate-limited"),
        ("3", "200", "delivered", ""),
    ] {
        let of_number = |span: &&&Exported| span.attribute("tidings.attempt") == number;
        let attempt = attempts.iter().find(of_number).unwrap();
        assert_eq!(attempt.attribute("http.response.status_code"), status);
        assert_eq!(attempt.attribute("tidings.outcome"), outcome);
        assert_eq!(attempt.attribute("error.type"), error);
        assert_eq!(attempt.is_error, !error.is_empty());
    }
    rig.drained().await;
}

async fn providers(rig: &Rig, arguments: [&str; 2]) {
    let mut command = tokio::process::Command::new(TIDINGS);
    command.arg("providers").args(arguments);
    let output = command.args(["--nats", rig.url()]).output().await;
    let output = output.expect("the tool can be started");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_parked_delivery_that_is_woken_keeps_its_trace() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(collector.traced(Role::up())).await;
    providers(&rig, ["pause", "apps/hook"]).await;

    assert_eq!(post(&up, "waiting", &sampled()).await, 202);
    eventually("the delivery is parked", async || {
        let parked = up.metric("tidings_deliveries_parked", "").await;
        (parked >= 1.0).then_some(())
    })
    .await;
    // A tool stores the delivery again, without traces of its own.
    providers(&rig, ["resume", "apps/hook"]).await;

    let spans = collector.has("deliver", 1).await;
    lead_from_the_post(&spans);
    assert_eq!(spans[0].trace, TRACE);
    rig.drained().await;
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_gone_harms_nothing_and_spans_are_dropped() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    collector.answer_with(Reply::Stall);
    let mut up = rig.run(collector.traced(Role::up())).await;
    let count = |outcome: &'static str| up.metric("tidings_trace_spans_total", outcome);

    // Each has three spans, and 2,560 fit into the queue and a request.
    let mut posted = 0;
    while count("dropped").await == 0.0 {
        let posting = (posted..posted + 500).map(async |number| {
            let answer = up.post(&event(&format!("event {number}"))).await;
            assert_eq!(answer.unwrap().status, 202);
        });
        posted += stream::iter(posting).buffer_unordered(16).count().await;
    }
    receiver.receives(posted).await;
    rig.drained().await;
    collector.answer_with(Reply::Close);
    up.logs_with("traces-not-exported", []).await;
    assert!(count("failed").await > 0.0);
    assert!(!up.log().iter().any(|line| line.contains("/hook/v1")));

    // What is left does not delay its end.
    collector.answer_with(Reply::Stall);
    assert!(up.terminate().await.success());
}

#[tokio::test]
async fn spans_that_wait_are_sent_when_the_process_ends() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut up = rig.run(collector.traced(Role::up())).await;

    up.post(&event("the last one")).await.unwrap();
    rig.routed().await;
    receiver.receives(1).await;
    rig.drained().await;
    assert!(up.terminate().await.success());

    lead_from_the_post(&collector.spans());
}

#[tokio::test]
async fn the_parent_decides_what_is_recorded_and_else_the_sampling() {
    let (rig, collector) = (Rig::start(TIDINGS).await, Collector::start().await);
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let role = collector.traced(Role::up());
    let up = rig.run(role.env("TIDINGS_OTLP__SAMPLING", "0")).await;

    up.post(&event("without a parent")).await.unwrap();
    let not_sampled = format!("00-{}-{SENDER}-00", TRACE.replace('4', "5"));
    assert_eq!(post(&up, "not sampled", &not_sampled).await, 202);
    let invalid = format!("00-{TRACE}-{SENDER}-01-{}", "x".repeat(4000));
    assert_eq!(post(&up, "invalid", &invalid).await, 202);
    receiver.receives(3).await;
    assert_eq!(post(&up, "sampled", &sampled()).await, 202);

    let spans = collector.has("deliver", 1).await;
    lead_from_the_post(&spans);
    assert_eq!(spans[0].trace, TRACE);
    rig.drained().await;
}

#[tokio::test]
async fn without_an_endpoint_messages_carry_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;

    assert_eq!(post(&up, "plain", &sampled()).await, 202);
    receiver.accepts("plain").await;

    let jetstream = rig.jetstream().await;
    for stream in ["EVENTS", "OUTCOMES"] {
        let stream = jetstream.get_stream(stream).await.unwrap();
        let message = eventually("there is a message", async || {
            stream.get_raw_message(1).await.ok()
        })
        .await;
        assert!(message.headers.get("traceparent").is_none());
    }
    assert!(!up.metrics().await.contains("trace_id"));
    assert!(!up.metrics().await.contains("tidings_trace_spans_total"));
    rig.drained().await;
}
