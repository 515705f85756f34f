//! The HorizontalPodAutoscaler of the workers, which reads their CPU time from metrics-server.

use std::time::Duration;

use tidings_rig::eventually_within;
use tokio::time::sleep;

use crate::cluster::{CHANGE, get};
use crate::load::{balance, post, send_during};
use crate::release::Release;
use crate::standard::WORKLOADS;

/// The default target needs more events than a node on two cores can send and deliver.
const FLAGS: [&str; 4] = [
    "--set=ingest.autoscaling.enabled=false",
    "--set=worker.autoscaling.minReplicas=1",
    "--set=worker.autoscaling.maxReplicas=3",
    "--set=worker.autoscaling.targetCPUUtilization=15",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: run `make e2e`"]
async fn workers_are_added_under_load_and_removed_after_it_and_nothing_is_lost() {
    let release = Release {
        name: "tidings",
        namespace: "autoscaling",
        mode: "standard",
        workloads: &WORKLOADS,
    };
    let release = release.installed(&FLAGS).await;
    let receiver = release.receiver().await;
    let address = release.address().await;
    has_workers(1).await;

    let mut posted = send_during(&address, "load", 40, has_workers(3)).await;
    balance("autoscaling, 1 to 3 workers", &posted, &receiver).await;
    posted.extend(post(&address, "calm", 1, Duration::from_secs(10)).await);
    has_workers(1).await;
    balance("autoscaling, 3 to 1 worker", &posted, &receiver).await;
    release.uninstall().await;
}

/// Waits until the autoscaler wants this number of workers, and has it.
async fn has_workers(count: u64) {
    let what = format!("the autoscaler has {count} workers");
    let utilization = eventually_within(CHANGE, &what, async || {
        let names = ["hpa/tidings-worker", "deployment/tidings-worker"];
        let list = get(&[&names[..], &["--namespace=autoscaling"]].concat()).await;
        let (autoscaler, workers) = (&list["items"][0]["status"], &list["items"][1]["status"]);
        let metric = &autoscaler["currentMetrics"][0]["resource"]["current"];
        let has = autoscaler["desiredReplicas"] == count
            && workers["replicas"] == count
            && workers["readyReplicas"] == count;
        let utilization = metric["averageUtilization"].as_u64().filter(|_| has);
        if utilization.is_none() {
            // kubectl takes CPU time that the pods need.
            sleep(Duration::from_secs(2)).await;
        }
        utilization
    })
    .await;
    println!("{count} workers, which use {utilization} % of their CPU request");
}
