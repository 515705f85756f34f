//! The mode `standard`: ingest, routers, workers and three NATS servers.

use std::time::Duration;

use crate::cluster::kill_container;
use crate::load::{balance, post, send_during};
use crate::release::Release;
use crate::usage::measure;

pub const WORKLOADS: [&str; 4] = [
    "statefulset/tidings-nats",
    "deployment/tidings-ingest",
    "deployment/tidings-router",
    "deployment/tidings-worker",
];

/// The test scales, so that each change has its time. See `autoscaling` for the autoscaler.
pub const FLAGS: [&str; 3] = [
    "--set=ingest.autoscaling.enabled=false",
    "--set=worker.autoscaling.enabled=false",
    "--set=worker.replicas=1",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: run `make e2e`"]
async fn the_mode_standard_loses_nothing_while_pods_and_releases_change() {
    let release = Release::install("standard", &WORKLOADS, &FLAGS).await;
    let receiver = release.receiver().await;
    let address = release.address().await;
    let mut posted = post(&address, "first", 1, Duration::from_secs(1)).await;
    balance("standard, the first event", &posted, &receiver).await;
    release.test().await;

    posted.extend(measure("standard", &address).await);
    balance("standard, undisturbed", &posted, &receiver).await;

    let changes = async {
        change_pods(&release).await;
        release
            .upgrade(&[&FLAGS[..], &["--set=image.tag=next"]].concat())
            .await;
        println!("upgraded");
        release.rollback("1").await;
        println!("rolled back");
    };
    posted.extend(send_during(&address, "changes", 10, changes).await);
    balance("standard, with all changes", &posted, &receiver).await;
    release.uninstall().await;
}

/// Scales workers, and ends pods in every way.
async fn change_pods(release: &Release) {
    release.scale_workers(3).await;
    println!("scaled to 3 workers");
    for component in ["ingest", "router", "worker", "nats"] {
        release.delete_pod(component).await;
        let pods = release.pods(component).await;
        kill_container("standard", &pods[0]).await;
        release.ready().await;
        println!("{component}: deleted a pod, then killed {}", pods[0]);
    }
    release.scale_workers(1).await;
    println!("scaled to 1 worker");
}
