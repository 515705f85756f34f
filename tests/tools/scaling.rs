//! `/scaling`: what waits, for autoscalers.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect;
use tidings_core::runtime::config::{Flag, Settings, Sources};
use tidings_core::{Delivery, ProviderReference};
use tidings_rig::{
    Process, Receiver, Rig, Role, alert, event, eventually, free_port, get, provider,
};

use crate::TIDINGS;
use crate::command::tidings;

/// A rig whose server has a monitoring port, and the address of that port.
async fn monitored() -> (Rig, String) {
    let port = free_port();
    let configuration = format!("http: \"127.0.0.1:{port}\"");
    let rig = Rig::start_with(TIDINGS, |_| configuration).await;
    (rig, format!("http://127.0.0.1:{port}"))
}

async fn scaling(router: &Process) -> Value {
    let response = router.get("/scaling").await;
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(&response.body).expect("the answer is JSON")
}

/// What the nats-jetstream scaler of KEDA computes for a consumer of DELIVERIES.
async fn computed_by_keda(monitoring: &str, consumer: &str) -> Option<u64> {
    let url = format!("{monitoring}/jsz?acc=$G&consumers=true&config=true");
    let answer: Value = serde_json::from_str(&get(&url).await.body).unwrap();
    let named = |list: &Value, name: &str| {
        let found = list.as_array()?.iter().find(|item| item["name"] == name);
        found.cloned()
    };
    let account = named(&answer["account_details"], "$G")?;
    let stream = named(&account["stream_detail"], "DELIVERIES")?;
    let consumer = named(&stream["consumer_detail"], consumer)?;
    Some(consumer["num_pending"].as_u64()? + consumer["num_ack_pending"].as_u64()?)
}

/// Connects to the bus as a role does.
pub(crate) async fn bus(rig: &Rig) -> Bus {
    let url = Flag {
        name: "--nats".to_owned(),
        key: "nats.url".to_owned(),
        value: rig.url().to_owned(),
    };
    let sources = Sources {
        flags: vec![url],
        ..Sources::default()
    };
    let settings = Settings::load(&sources).unwrap();
    connect(&settings.nats, "test").await.unwrap()
}

/// Parks deliveries for an hour, as a worker does.
async fn park(rig: &Rig, number: u64) {
    let bus = bus(rig).await;
    let parked = stream::iter(0..number).map(async |number| {
        let delivery = Delivery {
            id: format!("parked-{number}"),
            provider: Some(ProviderReference {
                namespace: "apps".to_owned(),
                name: "hook".to_owned(),
                r#type: "generic".to_owned(),
                pool: "default".to_owned(),
            }),
            ..Delivery::default()
        };
        let hour = Duration::from_secs(3600);
        let id = delivery.id.clone();
        let parked = bus.park(&delivery, &id, 1_000_000 + number, hour).await;
        parked.expect("the server stores parked deliveries");
    });
    parked.buffer_unordered(256).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn parked_deliveries_are_never_ready() {
    const PARKED: u64 = 10_000;
    let (rig, monitoring) = monitored().await;
    rig.leaves_deliveries(PARKED, "they are parked for an hour");
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    park(&rig, PARKED).await;

    let answer = eventually("all of them are counted as parked", async || {
        let answer = scaling(&up).await;
        (answer["parked"] == PARKED).then_some(answer)
    })
    .await;
    let nothing = json!({"ready": 0, "unacknowledged": 0, "backlog": 0});
    assert_eq!(answer["workers"]["default"]["byType"]["generic"], nothing);
    assert_eq!(answer["workers"]["default"]["backlog"], 0, "{answer}");
    assert_eq!(answer["oldestReadySeconds"], 0, "{answer}");
    let keda = computed_by_keda(&monitoring, "default-generic").await;
    assert_eq!(keda, Some(0));
    up.counts("tidings_deliveries_parked", "", PARKED as f64)
        .await;
    let labels = r#"{pool="default",type="generic"}"#;
    assert!(
        up.metrics()
            .await
            .contains(&format!("tidings_deliveries_ready{labels} 0"))
    );
}

#[tokio::test]
async fn deliveries_without_a_worker_are_ready_with_or_without_a_consumer() {
    let (rig, monitoring) = monitored().await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [ingest, router] = rig.run_all([Role::ingest(), Role::router()]).await;
    let post = async |prefix: &str| {
        for number in 0..5 {
            let event = event(&format!("{prefix} {number}"));
            ingest.post(&event).await.unwrap();
        }
    };
    let has = async |ready: u64| {
        eventually(&format!("{ready} deliveries are ready"), async || {
            let answer = scaling(&router).await;
            let pool = &answer["workers"]["default"];
            (pool["byType"]["generic"]["ready"] == ready && pool["backlog"] == ready).then_some(())
        })
        .await;
    };

    post("before the first worker").await;
    has(5).await;
    let labels = r#"pool="default",type="generic""#;
    eventually("the metric follows", async || {
        let metric = router.metric("tidings_deliveries_ready", labels).await;
        (metric == 5.0).then_some(())
    })
    .await;
    eventually("they get older", async || {
        let oldest = router.metric("tidings_oldest_ready_seconds", "").await;
        (oldest > 0.0).then_some(())
    })
    .await;

    let mut worker = rig.run(Role::worker()).await;
    receiver.receives(5).await;
    has(0).await;

    worker.kill().await;
    post("after the last worker").await;
    has(5).await;
    let keda = computed_by_keda(&monitoring, "default-generic").await;
    assert_eq!(keda, Some(5), "both forms agree");

    worker.restart().await;
    receiver.receives(10).await;
    has(0).await;
}

#[tokio::test]
async fn events_without_a_router_are_unrouted() {
    let rig = Rig::start(TIDINGS).await;
    let mut router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest()).await;
    router.kill().await;
    for number in 0..3 {
        let event = event(&format!("unread {number}"));
        ingest.post(&event).await.unwrap();
    }
    let unrouted = async || {
        let status = ["status", "--output", "json", "--nats", rig.url()];
        let ended = tidings(&status).await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        report["backlog"]["eventsUnrouted"].clone()
    };
    assert_eq!(unrouted().await, 3);

    router.restart().await;
    rig.routed().await;
    eventually("all events are routed", async || {
        (scaling(&router).await["eventsUnrouted"] == 0).then_some(())
    })
    .await;
    assert_eq!(unrouted().await, 0);
}

#[tokio::test]
async fn a_pool_that_is_asked_for_is_in_the_answer_and_only_routers_answer() {
    let rig = Rig::start(TIDINGS).await;
    let [router, worker] = rig.run_all([Role::router(), Role::worker()]).await;
    let response = router.get("/scaling?pool=eu&type=incident%2Eio").await;
    let answer: Value = serde_json::from_str(&response.body).unwrap();
    let pool = &answer["workers"]["eu"];
    assert_eq!(pool["backlog"], 0, "{answer}");
    assert_eq!(pool["byType"]["incident.io"]["ready"], 0, "{answer}");
    assert_eq!(worker.get("/scaling").await.status, 404);
}

/// The value at a path of keys that are separated by dots, as GJSON reads it.
fn value_at<'a>(answer: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(answer, |value, key| &value[key])
}

/// The documents of a file in `deploy/keda`.
fn manifests(file: &str) -> Vec<Value> {
    let path = format!("{}/deploy/keda/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let documents = text.split("\n---\n");
    documents
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

#[tokio::test]
async fn what_the_manifests_for_keda_read_exists() {
    let rig = Rig::start(TIDINGS).await;
    let [router, _worker] = rig.run_all([Role::router(), Role::worker()]).await;
    let mut paths = Vec::new();
    for manifest in manifests("metrics-api.yaml") {
        let triggers = manifest["spec"]["triggers"].as_array();
        for trigger in triggers.into_iter().flatten() {
            let metadata = &trigger["metadata"];
            let url = metadata["url"].as_str().unwrap();
            let path = url.split_once(":8081").unwrap().1;
            let answer: Value = serde_json::from_str(&router.get(path).await.body).unwrap();
            let location = metadata["valueLocation"].as_str().unwrap();
            assert_eq!(value_at(&answer, location), 0, "{location} of {answer}");
            paths.push(location.to_owned());
        }
    }
    assert_eq!(paths.len(), 3, "{paths:?}");
    let jetstream = rig.jetstream().await;
    for manifest in manifests("nats-jetstream.yaml") {
        for trigger in manifest["spec"]["triggers"].as_array().unwrap() {
            let text = |field: &str| trigger["metadata"][field].as_str().unwrap();
            let stream = jetstream.get_stream(text("stream")).await.unwrap();
            let consumer = text("consumer");
            assert!(stream.consumer_info(consumer).await.is_ok(), "{consumer}");
        }
    }
}

#[tokio::test]
async fn every_router_of_a_nats_cluster_has_the_numbers_of_the_leaders() {
    let (rig, _cluster) = Rig::start_on_cluster(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut worker = rig.run(Role::worker()).await;
    assert!(worker.terminate().await.success());
    let [ingest, first, second, third] = rig
        .run_all([
            Role::ingest(),
            Role::router(),
            Role::router(),
            Role::router(),
        ])
        .await;
    for number in 0..4 {
        let event = event(&format!("event {number}"));
        eventually("it is stored", async || {
            let status = ingest.post(&event).await.ok()?.status;
            [202, 429].contains(&status).then_some(())
        })
        .await;
    }
    for router in [&first, &second, &third] {
        eventually("four deliveries are ready", async || {
            let answer = scaling(router).await;
            (answer["workers"]["default"]["byType"]["generic"]["ready"] == 4).then_some(())
        })
        .await;
    }
    worker.restart().await;
    receiver.receives(4).await;
    for router in [&first, &second, &third] {
        eventually("nothing waits", async || {
            let answer = scaling(router).await;
            (answer["workers"]["default"]["backlog"] == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn many_requests_at_a_time_cost_as_much_as_one() {
    const REQUESTS: u64 = 500;
    let (rig, monitoring) = monitored().await;
    let up = rig.run(Role::up()).await;
    let requests_to_server = async || {
        let answer = get(&format!("{monitoring}/jsz")).await.body;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["api"]["total"].as_u64().unwrap()
    };
    let one = {
        let before = requests_to_server().await;
        scaling(&up).await;
        requests_to_server().await - before
    };
    let before = requests_to_server().await;
    let answers = stream::iter(0..REQUESTS).map(|_| scaling(&up));
    let answers: Vec<Value> = answers.buffer_unordered(32).collect().await;
    assert_eq!(answers.len() as u64, REQUESTS);
    let all = requests_to_server().await - before;
    // Each reading makes dozens of requests, and the roles make some themselves.
    assert!(all < REQUESTS * 4, "{all} requests; one answer: {one}");
}

#[tokio::test]
async fn probes_are_answered_while_many_requests_wait_for_a_server_that_hangs() {
    let mut rig = Rig::start(TIDINGS).await;
    let router = rig.run(Role::router()).await;
    rig.nats().freeze();
    // Requests that wait get another error than those that are refused, because too many wait.
    eventually("some requests wait and others are refused", async || {
        let answers = stream::iter(0..50).map(async |_| router.get("/scaling").await.body);
        let answers = answers.buffer_unordered(50).collect::<HashSet<String>>();
        let probes = async {
            for _ in 0..20 {
                assert_eq!(router.get("/livez").await.status, 200);
            }
        };
        let (answers, ()) = tokio::join!(answers, probes);
        let errors = answers.iter().filter(|answer| answer.contains("error"));
        (errors.count() > 1).then_some(())
    })
    .await;
    rig.nats().thaw();
    eventually("the router answers again", async || {
        (router.get("/scaling").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_bus_the_answer_is_an_error() {
    let mut rig = Rig::start(TIDINGS).await;
    let router = rig.run(Role::router()).await;
    scaling(&router).await;
    rig.nats().kill().await;
    eventually("the router says that it cannot know", async || {
        let response = router.get("/scaling").await;
        let body: Value = serde_json::from_str(&response.body).ok()?;
        (response.status == 503 && body["error"].is_string()).then_some(())
    })
    .await;
    rig.nats().restart().await;
    eventually("the router answers again", async || {
        (router.get("/scaling").await.status == 200).then_some(())
    })
    .await;
}
