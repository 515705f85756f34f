//! A Lease and the replicas that compete for it.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tidings_core::runtime::health::Health;
use tidings_core::runtime::kubernetes::lease::{Election, Leadership, LeaseError};
use tidings_rig::{KubeApiServer, eventually};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A replica that reports its leadership to the test.
struct Replica {
    stop: CancellationToken,
    leads: mpsc::Receiver<Leadership>,
    run: tokio::task::JoinHandle<()>,
}

async fn replica(server: &KubeApiServer, namespace: &str, identity: &str) -> Replica {
    let (stop, (report, leads)) = (CancellationToken::new(), mpsc::channel(9));
    let election = Election {
        client: server.client().await,
        namespace: namespace.to_owned(),
        name: "work".to_owned(),
        identity: identity.to_owned(),
        check: Health::default().check("lease", None),
    };
    let run = tokio::spawn({
        let stop = stop.clone();
        async move {
            let work = |leadership: Leadership| {
                let report = report.clone();
                async move {
                    report
                        .send(leadership.clone())
                        .await
                        .expect("the test receives reports");
                    leadership.over().cancelled().await;
                }
            };
            election.lead(&stop, work).await;
        }
    });
    Replica { stop, leads, run }
}

impl Replica {
    async fn leads(&mut self) -> Leadership {
        tokio::time::timeout(tidings_rig::PATIENCE, self.leads.recv())
            .await
            .expect("it becomes the leader")
            .expect("the election runs")
    }
}

fn note(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("example.com/note".to_owned(), text.to_owned())])
}

async fn leases(server: &KubeApiServer, namespace: &str) -> Api<Lease> {
    Api::namespaced(server.client().await, namespace)
}

async fn patch(leases: &Api<Lease>, patch: Value) {
    leases
        .patch("work", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("the Lease exists");
}

#[tokio::test]
async fn a_new_holder_reads_the_annotations_of_a_released_lease() {
    let server = KubeApiServer::shared().await;
    let namespace = server.namespace().await;
    let mut first = replica(server, &namespace, "first").await;
    let leadership = first.leads().await;
    let mut second = replica(server, &namespace, "second").await;
    leadership
        .annotate(note("a"))
        .await
        .expect("the Lease is held");
    assert!(second.leads.try_recv().is_err(), "there is one leader");
    first.stop.cancel();
    first.run.await.expect("the election ends");
    assert_eq!(second.leads().await.annotations().await, note("a"));
    assert!(matches!(
        leadership.annotate(note("b")).await,
        Err(LeaseError::Lost)
    ));
    second.stop.cancel();
}

#[tokio::test]
async fn a_former_holder_cannot_write_and_ends_its_work() {
    let server = KubeApiServer::shared().await;
    let namespace = server.namespace().await;
    let mut first = replica(server, &namespace, "first").await;
    let leadership = first.leads().await;
    let leases = leases(server, &namespace).await;
    let taken =
        json!({"holderIdentity": "other", "leaseTransitions": 7, "leaseDurationSeconds": 1});
    patch(&leases, json!({"spec": taken})).await;
    assert!(matches!(
        leadership.annotate(note("late")).await,
        Err(LeaseError::Lost)
    ));
    assert!(leadership.over().is_cancelled());
    assert_eq!(
        leases
            .get("work")
            .await
            .expect("the Lease exists")
            .metadata
            .annotations,
        None
    );
    // The other holder does not renew, so the first one takes the Lease again after one second.
    assert_eq!(first.leads().await.annotations().await, BTreeMap::new());
    let taken = leases
        .get("work")
        .await
        .expect("the Lease exists")
        .spec
        .expect("the Lease is held");
    assert_eq!(
        (taken.holder_identity.as_deref(), taken.lease_transitions),
        (Some("first"), Some(8))
    );
    first.stop.cancel();
}

#[tokio::test]
async fn annotations_of_other_clients_stay_and_do_not_end_the_term() {
    let server = KubeApiServer::shared().await;
    let namespace = server.namespace().await;
    let mut first = replica(server, &namespace, "first").await;
    let leadership = first.leads().await;
    let leases = leases(server, &namespace).await;
    patch(
        &leases,
        json!({"metadata": {"annotations": {"example.com/other": "b"}}}),
    )
    .await;
    leadership
        .annotate(note("a"))
        .await
        .expect("the Lease is still held");
    let both: BTreeMap<String, String> = note("a")
        .into_iter()
        .chain([("example.com/other".to_owned(), "b".to_owned())])
        .collect();
    assert_eq!(
        leases
            .get("work")
            .await
            .expect("the Lease exists")
            .metadata
            .annotations,
        Some(both)
    );
    first.stop.cancel();
}

#[tokio::test]
async fn a_holder_that_cannot_renew_ends_its_work_and_a_deleted_lease_is_recreated() {
    let server = KubeApiServer::start().await;
    let namespace = server.namespace().await;
    let mut first = replica(&server, &namespace, "first").await;
    let leadership = first.leads().await;
    server.freeze();
    eventually("the term is over", async || {
        leadership.over().is_cancelled().then_some(())
    })
    .await;
    assert!(matches!(
        leadership.annotate(note("late")).await,
        Err(LeaseError::Lost)
    ));
    server.thaw();
    let again = first.leads().await;
    leases(&server, &namespace)
        .await
        .delete("work", &Default::default())
        .await
        .expect("the Lease exists");
    eventually("the term is over", async || {
        again.over().is_cancelled().then_some(())
    })
    .await;
    first
        .leads()
        .await
        .annotate(note("a"))
        .await
        .expect("the Lease is held again");
    first.stop.cancel();
}
