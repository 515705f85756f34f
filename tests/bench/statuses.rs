//! Counts the calls to a forge for many reconciliations of objects that do not change.
//!
//! ```text
//!  events ─┬─► tidings up ──────────────────────────► a forge that counts calls
//!          └─► the same code without stored records, ► the same forge
//!              which reads before each write
//! ```
//!
//! The second way is that of a tool that stores no record of its writes. See docs/benchmark.md.

use anyhow::{Context, bail};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tidings_core::Outcome;
use tidings_core::bus::clusters::Clusters;
use tidings_core::runtime::config::AddressSettings;
use tidings_rig::{Forge, Process, Rig, Role, alert, event, eventually_within};
use tidings_router::{PlanContext, explain};
use tidings_rules::{Options as RulesOptions, Rules, folder};
use tidings_workers::attempt::{Prepared, attempt_once, prepare};
use tidings_workers::http::{Http, HttpClients};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_tidings");
/// The number of concurrent posts.
const CONNECTIONS: usize = 16;
/// The time limit for the last deliveries.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// Count the calls to a forge for reconciliations of objects that do not change
#[derive(Parser, Debug)]
struct Options {
    /// Number of objects
    #[arg(long, env = "BENCH_OBJECTS", default_value_t = 100)]
    objects: usize,
    /// Number of reconciliations of all objects
    #[arg(long, env = "BENCH_RECONCILIATIONS", default_value_t = 10_000)]
    reconciliations: usize,
    /// The flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The calls to a forge.
#[derive(Clone, Copy, Default)]
struct Calls {
    reads: usize,
    writes: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.objects == 0 || options.reconciliations < options.objects {
        bail!(
            "each of {} objects must be reconciled at least once",
            options.objects
        );
    }
    let forge = Forge::start().await;
    let rig = Rig::start(EXECUTABLE).await;
    Forge::put_secret(rig.rules());
    rig.rules()
        .put([forge.provider("github"), alert("commits", "forge")]);

    println!("{:<34}{:>20}{:>20}", "", "the first of each", "all others");
    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}",
        "", "reads", "writes", "reads", "writes"
    );
    let [first, others] = with_tidings(&options, &rig, &forge).await?;
    print("tidings", first, others);
    let [first, others] = reading_first(&options, &rig, &forge).await?;
    print("a tool that reads first", first, others);
    Ok(())
}

fn print(name: &str, first: Calls, others: Calls) {
    println!(
        "{name:<34}{:>10}{:>10}{:>10}{:>10}",
        first.reads, first.writes, others.reads, others.writes
    );
}

/// The reconciliation with this number. Each object has its own commit: if many shared one, a list
/// would have several pages and cost more calls.
fn reconciliation(options: &Options, number: usize) -> Value {
    let mut event = event(&format!(
        "Reconciliation finished in {number}ms, next run in 10m0s"
    ));
    let object = number % options.objects;
    event["involvedObject"]["name"] = format!("app-{object}").into();
    event["involvedObject"]["uid"] = format!("1c0c2f0e-8f4b-4d3b-9a51-{object:012x}").into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{object:040x}")});
    event
}

/// The calls since `before`.
fn calls(forge: &Forge, before: Calls) -> Calls {
    let contents = forge.contents();
    Calls {
        reads: contents.reads - before.reads,
        writes: contents.writes.len() - before.writes,
    }
}

async fn with_tidings(options: &Options, rig: &Rig, forge: &Forge) -> anyhow::Result<[Calls; 2]> {
    let up = rig.run(Role::up()).await;
    post(
        &up,
        (0..options.objects).map(|number| reconciliation(options, number)),
    )
    .await?;
    finished(rig, forge, options.objects).await;
    let first = calls(forge, Calls::default());
    post(
        &up,
        (options.objects..options.reconciliations).map(|number| reconciliation(options, number)),
    )
    .await?;
    finished(rig, forge, options.objects).await;
    let all = calls(forge, Calls::default());
    Ok([
        first,
        Calls {
            reads: all.reads - first.reads,
            writes: all.writes - first.writes,
        },
    ])
}

async fn post(up: &Process, events: impl Iterator<Item = Value>) -> anyhow::Result<()> {
    let posts = stream::iter(events).map(async |event| {
        let answer = up.post(&event).await?;
        if answer.status == 202 {
            Ok(())
        } else {
            bail!(
                "the response to an event is {}: {}",
                answer.status,
                answer.body
            )
        }
    });
    posts.buffer_unordered(CONNECTIONS).try_collect().await
}

/// Waits until every event is routed and every delivery is made.
async fn finished(rig: &Rig, forge: &Forge, at_least: usize) {
    let jetstream = rig.jetstream().await;
    eventually_within(PATIENCE, "all deliveries are made", async || {
        let events = jetstream.get_stream("EVENTS").await.ok()?;
        let mut router = events
            .get_consumer::<async_nats::jetstream::consumer::pull::Config>("router")
            .await
            .ok()?;
        let routed = router.info().await.ok()?;
        let is_routed = routed.num_pending == 0 && routed.num_ack_pending == 0;
        let left = jetstream
            .get_stream("DELIVERIES")
            .await
            .ok()?
            .cached_info()
            .state
            .messages;
        (is_routed && left == 0 && forge.contents().writes.len() >= at_least).then_some(())
    })
    .await;
}

async fn reading_first(options: &Options, rig: &Rig, forge: &Forge) -> anyhow::Result<[Calls; 2]> {
    let rules = folder::load(
        rig.rules().folder(),
        tidings_workers::notifier::kinds(),
        &RulesOptions::default(),
    );
    let rules = rules.map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let http_clients = HttpClients::new(AddressSettings {
        loopback: true,
        ..AddressSettings::default()
    });
    let http_clients = http_clients.context("cannot read the system's certificates")?;
    let provider = rules
        .resolve(tidings_rig::NAMESPACE, "forge")
        .map_err(|unresolved| anyhow::anyhow!("{unresolved}"))?;
    let prepared = prepare(provider, |provider| Http::new(provider, &http_clients))?;
    forge.contents().statuses.clear();
    let before = calls(forge, Calls::default());
    for number in 0..options.objects {
        attempt(
            &rules,
            &prepared,
            &reconciliation(options, number),
            Outcome::Delivered,
        )
        .await?;
    }
    let first = calls(forge, before);
    let before = calls(forge, Calls::default());
    for number in options.objects..options.reconciliations {
        attempt(
            &rules,
            &prepared,
            &reconciliation(options, number),
            Outcome::Duplicate,
        )
        .await?;
    }
    Ok([first, calls(forge, before)])
}

/// One attempt of an event's delivery, without stored records.
async fn attempt(
    rules: &Rules,
    prepared: &Prepared,
    event: &Value,
    expected: Outcome,
) -> anyhow::Result<()> {
    let event = tidings_ingest::parse_event(
        event.to_string().as_bytes(),
        "default",
        jiff::Timestamp::now(),
        None,
    )?;
    let delivery = explain(rules, &event, &Clusters::new(), PlanContext::default())
        .into_iter()
        .find_map(|explained| explained.delivery);
    let delivery = delivery.context("the event has no delivery")?;
    let alert = delivery.alert.clone().unwrap_or_default();
    let texts = prepared.texts(&delivery, &event);
    let message = prepared.message(&delivery, &texts, &alert);
    let ended = attempt_once(prepared, &message)
        .await
        .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    if ended.outcome == expected {
        Ok(())
    } else {
        bail!("expected {expected:?}, got {:?}", ended.outcome)
    }
}
