//! Time and memory to load many rules.

use std::fs;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Role};
use tokio::time::Instant;

use crate::bed::{Bed, alert, provider, reaches, secret};
use crate::object::objects;

const ALERTS: usize = 2000;
const PROVIDERS: usize = 200;

/// The resident memory of a process, in MiB.
fn memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}

/// The CPU time of a process, in seconds.
fn cpu_time(process: &Process) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    // User and system time in hundredths of a second. The name before them may contain spaces.
    let fields = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .skip(11)
        .take(2);
    fields
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Ten Alerts for each Provider, each with its own Secret and source. The last Alert matches the
/// test's events.
fn rules(receiver: &Receiver) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let secrets = (0..PROVIDERS)
        .map(|number| secret(&format!("s{number}"), json!({"address": receiver.url()})))
        .collect();
    let reference = |number: usize| json!({"secretRef": {"name": format!("s{number}")}});
    let providers = (0..PROVIDERS)
        .map(|number| provider(&format!("p{number}"), reference(number)))
        .collect();
    let alerts = (0..ALERTS).map(|number| {
        let mut alert = alert(&format!("a{number}"), &format!("p{}", number / 10));
        if number + 1 < ALERTS {
            alert["spec"]["eventSources"][0]["name"] = format!("apps-{number}").into();
            alert["spec"]["exclusionList"] = json!([format!("^waiting for .*{number}$")]);
        }
        alert
    });
    (secrets, providers, alerts.collect())
}

#[tokio::test]
async fn two_thousand_alerts_and_two_hundred_providers_are_loaded_together() {
    let server = KubeApiServer::shared().await;
    let bed = Bed::on(server).await;
    let (client, receiver) = (server.client().await, Receiver::start().await);
    let (secrets, providers, alerts) = rules(&receiver);
    let secret_api: Api<Secret> = Api::namespaced(client.clone(), &bed.namespace);
    stream::iter(secrets)
        .for_each_concurrent(16, async |object| {
            let object: Secret = serde_json::from_value(object).unwrap();
            secret_api
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        })
        .await;
    for (kind, manifests) in [("Provider", providers), ("Alert", alerts)] {
        let api = objects(&client, &bed.namespace, "v1beta3", kind);
        stream::iter(manifests)
            .for_each_concurrent(16, async |object| {
                let object = serde_json::from_value(object).unwrap();
                api.create(&PostParams::default(), &object).await.unwrap();
            })
            .await;
    }
    let empty = bed.rig.run(Role::up().args(["--cluster", "empty"])).await;
    let base = memory(&empty);
    drop(empty);

    let started = Instant::now();
    let up = bed.up().await;

    let (took, cpu, memory) = (started.elapsed(), cpu_time(&up), memory(&up));
    println!(
        "{ALERTS} Alerts and {PROVIDERS} Providers: ready after {took:.1?}, {cpu} s of CPU time; \
         {memory} MiB, {base} MiB without rules"
    );
    // All rules are in one snapshot.
    up.counts("tidings_rules_snapshots_total", "", 1.0).await;
    assert_eq!(up.metric("tidings_rules_problems", "").await, 0.0);
    reaches(&up, &receiver).await;
    bed.rig.drained().await;
    assert_eq!(receiver.received().len(), receiver.accepted().len());
}
