//! Replays the recordings through the pipeline: posts events and compares the requests.
//!
//! Every case has its own namespace, so that all rules are loaded from the start. Between two cases
//! streams and buckets are purged, because each recording starts without state.

use async_nats::jetstream::{Context, consumer::pull, stream::Stream};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tidings_rig::{Process, Rig, Role, eventually};

use crate::TIDINGS;
use crate::case::{WireCase, load};
use crate::report::{Report, expect_equal};
use crate::sink::Sink;
use crate::wire::{compare_requests, compare_tunnels, environment, fill};

/// The namespace of the recordings.
const NAMESPACE: &str = "apps";
/// The streams and buckets that are purged between two cases.
const PURGED: [&str; 3] = ["DELIVERIES", "KV_latest", "KV_limits"];

/// Replays the cases of a provider type.
pub async fn replay(kind: &str) {
    let (sink, rig) = (Sink::start().await, Rig::start(TIDINGS).await);
    let mut report = Report::default();
    let (skipped, mut cases): (Vec<WireCase>, Vec<_>) =
        load::<WireCase>(&format!("providers/{kind}.json"))
            .into_iter()
            .partition(|case| skips(case).is_some());
    skipped
        .iter()
        .filter_map(skips)
        .for_each(|reason| report.skip(reason));
    for (number, case) in cases.iter_mut().enumerate() {
        prepare(case, &format!("case-{number}"), &sink.named);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": case.input.rules});
        rig.rules()
            .put_text(&format!("case-{number}.json"), &list.to_string());
    }
    let role = environment(&sink)
        .into_iter()
        .fold(Role::up(), |role, (name, value)| role.env(name, &value));
    let up = rig.run(role).await;
    let jetstream = rig.jetstream().await;
    for case in cases {
        report.add(&case.name, &problems(&case, &sink, &up, &jetstream).await);
        for name in PURGED {
            if let Ok(stream) = jetstream.get_stream(name).await {
                stream.purge().await.expect("a stream can be purged");
            }
        }
    }
    report.finish(&format!("{kind}, through the pipeline"));
}

fn skips(case: &WireCase) -> Option<&str> {
    let expressions = case
        .input
        .rules
        .iter()
        .filter_map(|object| object.pointer("/spec/commitStatusExpr")?.as_str());
    let reads_namespace = expressions
        .into_iter()
        .any(|expression| expression.contains("namespace"));
    case.skip
        .as_deref()
        .or(reads_namespace.then_some("its expression reads the namespace, which differs here"))
}

/// Moves a case to its own namespace, with deliveries that are not retried during the test.
fn prepare(case: &mut WireCase, namespace: &str, proxy: &str) {
    for object in &mut case.input.rules {
        fill(object, proxy);
        rename(object, namespace);
        if object["kind"] == "Provider" {
            object["spec"]["retry"] = json!({"min": "12h", "max": "12h"});
        }
    }
    rename(&mut case.input.event, namespace);
}

fn rename(value: &mut Value, namespace: &str) {
    match value {
        Value::String(text) if text == NAMESPACE => namespace.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, namespace)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| rename(member, namespace)),
        _ => {}
    }
}

async fn problems(case: &WireCase, sink: &Sink, up: &Process, jetstream: &Context) -> Vec<String> {
    sink.reset(&case.server);
    let dead = messages(jetstream, "DEAD").await;
    let answer = up.post(&case.input.event).await.expect("ingest responds");
    if answer.status != 202 {
        return vec![format!(
            "the response to the event is {}: {}",
            answer.status, answer.body
        )];
    }
    let parked = parked_deliveries(jetstream).await;
    let failed = parked > 0 || messages(jetstream, "DEAD").await > dead;

    let (tunnels, mut requests): (Vec<_>, Vec<_>) = sink
        .requests()
        .into_iter()
        .partition(|one| one.method == "CONNECT");
    if failed {
        // A retry after one second may be among the requests.
        requests.truncate(case.requests.len());
    }
    // notification-controller requests the version even if the event can set no status.
    let fails_early = failed
        && requests.is_empty()
        && case
            .requests
            .iter()
            .all(|one| one.path.ends_with("/version"));
    let mut problems = if fails_early {
        Vec::new()
    } else {
        compare_requests(case, &requests)
    };
    problems.extend(compare_tunnels(case, &tunnels));
    problems.extend(expect_equal("failed", &(case.exit == 1), &failed));
    if !problems.is_empty() {
        problems.extend(sink.errors());
    }
    problems
}

/// Waits until the event is routed and its deliveries are made or parked; returns the number of
/// parked ones.
async fn parked_deliveries(jetstream: &Context) -> u64 {
    eventually(
        "the deliveries of the event are made or parked",
        async || {
            let mut router = stream(jetstream, "EVENTS")
                .await?
                .get_consumer::<pull::Config>("router")
                .await
                .ok()?;
            let routed = router.info().await.ok()?;
            if routed.num_pending > 0 || routed.num_ack_pending > 0 {
                return None;
            }
            let mut deliveries = stream(jetstream, "DELIVERIES").await?;
            let parked: Vec<(String, usize)> = deliveries
                .info_with_subjects("parked.>")
                .await
                .ok()?
                .try_collect()
                .await
                .ok()?;
            let parked = parked.iter().map(|(_, count)| *count as u64).sum();
            (deliveries.info().await.ok()?.state.messages == parked).then_some(parked)
        },
    )
    .await
}

async fn stream(jetstream: &Context, name: &str) -> Option<Stream> {
    jetstream.get_stream(name).await.ok()
}

async fn messages(jetstream: &Context, name: &str) -> u64 {
    stream(jetstream, name)
        .await
        .expect("the stream exists")
        .cached_info()
        .state
        .messages
}
