//! `tidings status`.

use std::time::Duration;

use serde_json::Value;
use tidings_rig::{
    ONE_FOR_EACH_POST, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;
use crate::command::{Ended, tidings};

/// The status as JSON, and the exit status.
pub async fn status(rig: &Rig, more: &[&str]) -> (Value, Option<i32>) {
    let arguments = ["status", "--output", "json", "--nats", rig.url()];
    let ended = tidings(&[&arguments, more].concat()).await;
    let report = serde_json::from_str(&ended.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (report, ended.status)
}

async fn text(rig: &Rig) -> Ended {
    tidings(&["status", "--nats", rig.url()]).await
}

fn codes(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap();
    problems
        .iter()
        .map(|problem| problem["code"].as_str().unwrap())
        .collect()
}

fn message<'a>(report: &'a Value, code: &str) -> &'a str {
    let problems = report["problems"].as_array().unwrap();
    let found = problems.iter().find(|problem| problem["code"] == code);
    found.unwrap()["message"].as_str().unwrap()
}

/// Waits until exactly these problems are reported.
async fn has_problems<const N: usize>(rig: &Rig, expected: [&str; N]) -> Value {
    let mut last = Value::Null;
    let what = format!("the problems are {expected:?}");
    eventually(&what, async || {
        let (report, ended) = status(rig, &[]).await;
        assert_eq!(
            ended,
            Some(i32::from(!codes(&report).is_empty())),
            "{report}"
        );
        let is_expected = codes(&report) == expected;
        if !is_expected && last != report["problems"] {
            last = report["problems"].clone();
            println!("{last}");
        }
        is_expected.then_some(report)
    })
    .await
}

#[tokio::test]
async fn roles_appear_and_a_killed_worker_and_a_stopped_router_are_missing_soon() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [ingest, mut router, mut worker] = rig
        .run_all([
            Role::ingest().args(["--cluster", "prod.eu"]),
            Role::router(),
            Role::worker().args(["--pool", "default", "--pool", "eu"]),
        ])
        .await;
    ingest.post(&event("a sign of life")).await.unwrap();
    receiver.receives(1).await;

    let report = has_problems(&rig, []).await;
    let processes = report["processes"].as_array().unwrap();
    let roles: Vec<&str> = processes
        .iter()
        .map(|process| process["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["ingest", "router", "worker"], "{report}");
    let pools = &processes[2]["pools"];
    assert_eq!(pools, &serde_json::json!(["default", "eu"]));
    for process in processes {
        assert_eq!(process["isAlive"], true, "{report}");
        assert_eq!(process["version"], env!("CARGO_PKG_VERSION"), "{report}");
        assert!(!process["host"].as_str().unwrap().is_empty(), "{report}");
    }
    let reported = eventually("the cluster's ingest reported its event", async || {
        let (report, _) = status(&rig, &[]).await;
        let cluster = report["clusters"][0].clone();
        cluster["lastEventAt"].is_string().then_some(cluster)
    })
    .await;
    assert_eq!(reported["name"], "prod.eu");
    assert_eq!(reported["ingests"], 1);
    let screen = text(&rig).await;
    for shown in ["prod.eu", "worker", "all is well"] {
        assert!(screen.stdout.contains(shown), "{shown:?}: {screen:?}");
    }

    worker.kill().await;
    let report = has_problems(&rig, ["no-worker"]).await;
    let killed = report["processes"].as_array().unwrap();
    let killed = killed.iter().find(|process| process["role"] == "worker");
    assert_eq!(killed.unwrap()["isAlive"], false, "{report}");
    assert!(message(&report, "no-worker").contains("no worker is running"));

    assert!(router.terminate().await.success());
    let (report, _) = status(&rig, &[]).await;
    assert_eq!(codes(&report), ["no-router", "no-worker"]);
    let left = report["processes"].as_array().unwrap();
    let is_router = |process: &Value| process["role"] == "router";
    assert!(
        !left.iter().any(is_router),
        "it removed its report: {report}"
    );
}

#[tokio::test]
async fn the_last_event_of_a_cluster_is_known_after_its_ingest_restarted() {
    let rig = Rig::start(TIDINGS).await;
    let [_router, mut ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    ingest.post(&event("before the restart")).await.unwrap();
    assert!(ingest.terminate().await.success());
    ingest.restart().await;
    let cluster = eventually("the new ingest reported", async || {
        let (report, _) = status(&rig, &[]).await;
        let cluster = report["clusters"][0].clone();
        (cluster["ingests"] == 1).then_some(cluster)
    })
    .await;
    assert!(cluster["silentSeconds"].is_u64(), "{cluster}");
    rig.routed().await;
}

#[tokio::test]
async fn a_role_that_may_not_report_works() {
    let denied = "authorization { users: [{ user: role, password: role, permissions: { \
                  publish: { deny: [\"$KV.heartbeats.>\"] } } }] }";
    let rig = Rig::start_with(TIDINGS, |_| denied.to_owned()).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let with_login = |role: Role| {
        role.env("TIDINGS_NATS__USERNAME", "role")
            .env("TIDINGS_NATS__PASSWORD", "role")
    };
    let mut up = rig
        .run(with_login(Role::up().args(["--log-level", "debug"])))
        .await;
    up.logs("heartbeat-not-written").await;
    up.post(&event("anyway")).await.unwrap();
    receiver.accepts("anyway").await;
    assert!(up.terminate().await.success());
}

#[tokio::test]
async fn up_runs_every_role_and_a_reason_is_given_while_it_is_not_ready() {
    let (rig, _up) = Rig::up(TIDINGS, []).await;
    has_problems(&rig, []).await;

    let jetstream = rig.jetstream().await;
    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    let expected = stream.cached_info().config.clone();
    let mut changed = expected.clone();
    changed.max_age = Duration::from_secs(3600);
    jetstream.update_stream(changed).await.unwrap();
    let report = has_problems(&rig, ["not-ready"]).await;
    assert!(
        message(&report, "not-ready").contains("max_age"),
        "{report}"
    );
    assert!(
        report["processes"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("max_age")
    );

    jetstream.update_stream(expected).await.unwrap();
    has_problems(&rig, []).await;
}

#[tokio::test]
async fn an_open_circuit_shows_with_its_reason_and_a_pause_is_listed() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::RetryAfter(429, 3600));
    let rules = [provider("hook", receiver.url()), alert("all", "hook")];
    let (rig, up) = Rig::up(TIDINGS, rules).await;
    rig.leaves_deliveries(ONE_FOR_EACH_POST, "their circuit stays open");
    up.post(&event("to a busy service")).await.unwrap();

    let report = has_problems(&rig, ["circuit-open"]).await;
    let circuit = &report["circuits"][0];
    assert_eq!(circuit["provider"], "hook", "{report}");
    assert_eq!(circuit["state"], "open", "{report}");
    for field in ["since", "until"] {
        let time = circuit[field].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{field}: {report}");
    }
    let reason = circuit["reason"].as_str().unwrap();
    assert!(reason.contains("429"), "{reason}");
    let screen = text(&rig).await.stdout;
    assert!(screen.contains(reason), "{screen}");
    eventually("the delivery is parked", async || {
        let (report, _) = status(&rig, &[]).await;
        (report["backlog"]["parked"] == 1).then_some(())
    })
    .await;

    let paused = ["providers", "pause", "apps/hook", "--nats", rig.url()];
    tidings(&[&paused[..], &["--reason", "moving house"]].concat())
        .await
        .lines();
    let resumed = ["providers", "resume", "apps/hook", "--nats", rig.url()];
    tidings(&resumed).await.lines();
    tidings(&[&paused[..], &["--reason", "moving house"]].concat())
        .await
        .lines();
    eventually("the pause is listed, with its reason", async || {
        let (report, _) = status(&rig, &[]).await;
        let circuits = report["circuits"].as_array().unwrap();
        let paused = circuits.iter().find(|circuit| circuit["state"] == "paused");
        (paused?["reason"] == "moving house").then_some(())
    })
    .await;
}

#[tokio::test]
async fn dead_letters_need_attention_until_they_are_dropped() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(400));
    let rules = [provider("hook", receiver.url()), alert("all", "hook")];
    let (rig, up) = Rig::up(TIDINGS, rules).await;
    up.post(&event("unwanted")).await.unwrap();
    let report = has_problems(&rig, ["dead-letters"]).await;
    assert_eq!(report["deadLetters"]["count"], 1);
    assert!(report["deadLetters"]["lastAt"].is_string(), "{report}");
    rig.drained().await;

    let drop = ["dead", "drop", "--all", "--yes", "--nats", rig.url()];
    tidings(&drop).await.lines();
    has_problems(&rig, []).await;
}

#[tokio::test]
async fn lost_deliveries_need_attention_until_they_are_known() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::RetryAfter(503, 3600));
    let rules = [provider("hook", receiver.url()), alert("all", "hook")];
    let (rig, up) = Rig::up(TIDINGS, rules).await;
    rig.expects_losses("the stream is purged");
    up.post(&event("purged")).await.unwrap();
    eventually("the delivery is parked and counted", async || {
        (rig.recorded_counts().await?.parked == 1).then_some(())
    })
    .await;
    let deliveries = rig.jetstream().await.get_stream("DELIVERIES").await;
    deliveries.unwrap().purge().await.unwrap();

    let report = has_problems(&rig, ["lost-deliveries"]).await;
    assert_eq!(report["lostDeliveries"], 1);
    let (report, ended) = status(&rig, &["--known-losses", "1"]).await;
    assert_eq!((codes(&report).len(), ended), (0, Some(0)), "{report}");
}

#[tokio::test]
async fn foreign_reports_do_no_harm() {
    let (rig, _up) = Rig::up(TIDINGS, []).await;
    let jetstream = rig.jetstream().await;
    let bucket = jetstream.get_key_value("heartbeats").await.unwrap();
    let garbage = bytes::Bytes::from_static(&[0xff; 40]);
    bucket.put("x.ingest.y", garbage).await.unwrap();
    let claimed = tidings_core::wire::Heartbeat {
        role: "ingest".to_owned(),
        cluster: "claimed".to_owned(),
        process: "p".to_owned(),
        ..Default::default()
    };
    let value = tidings_core::Message::encode_to_vec(&claimed);
    bucket.put("other.ingest.p", value.into()).await.unwrap();
    let hostile = tidings_core::wire::Heartbeat {
        role: "ingest".to_owned(),
        cluster: "a\u{1b}[2J\r\nFORGED".to_owned(),
        host: "h\u{9b}2J".to_owned(),
        ready: true,
        ..Default::default()
    };
    let value = tidings_core::Message::encode_to_vec(&hostile);
    let cluster = tidings_core::model::token::Token::new(&hostile.cluster);
    let key = format!("{cluster}.ingest.=");
    bucket.put(key, value.into()).await.unwrap();

    let report = has_problems(&rig, []).await;
    assert_eq!(report["processes"].as_array().unwrap().len(), 2, "{report}");
    let screen = text(&rig).await;
    let acts = |character: char| character.is_control() && character != '\n';
    assert!(!screen.stdout.contains(acts), "{screen:?}");
    assert!(screen.stdout.contains("FORGED"), "{screen:?}");
    assert!(!screen.stdout.contains("claimed"), "{screen:?}");
}

#[tokio::test]
async fn a_server_without_tidings_is_an_error() {
    let rig = Rig::start(TIDINGS).await;
    let ended = text(&rig).await;
    assert_eq!(ended.status, Some(2), "{ended:?}");
    ended.assert_error_names(&["EVENTS"]);
}
