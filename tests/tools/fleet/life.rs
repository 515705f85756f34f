//! The clusters of a fleet: added, used, rotated, revoked.

use tidings_core::Message as _;
use tidings_core::model::access::section;
use tidings_core::model::time::to_proto;
use tidings_core::wire::EventsState;
use tidings_rig::{Authority, Receiver, Role, alert, event, eventually, provider};

use super::client::Intruder;
use super::{Fleet, assert_permitted, mode};
use crate::command::text;
use crate::command::tidings_with;

#[tokio::test]
async fn the_events_of_members_are_delivered_with_the_credentials_that_were_issued() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet
        .rig
        .rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let long = "very-long-name.".repeat(9) + "x";
    for name in ["dev-1", long.as_str()] {
        fleet.add(name).await;
    }
    let hub = fleet.hub().await;
    let mut members = Vec::new();
    for name in ["dev-1", long.as_str()] {
        members.push(fleet.rig.run(fleet.ingest_of(name)).await);
    }

    let large = format!("large {}", "x".repeat(100_000));
    for (number, member) in members.iter().enumerate() {
        for (message, severity, time) in [
            (format!("failed {number}"), "error", "2026-01-02T03:04:05Z"),
            (format!("works {number}"), "info", "2026-01-02T03:04:06Z"),
            // Not a duplicate, because the state changed in between.
            (format!("failed {number}"), "error", "2026-01-02T03:04:07Z"),
            (large.clone(), "info", "2026-01-02T03:04:08Z"),
        ] {
            let mut posted = event(&message);
            posted["severity"] = severity.into();
            posted["timestamp"] = time.into();
            if severity == "error" {
                posted["reason"] = "HealthCheckFailed".into();
            }
            assert_eq!(member.post(&posted).await.unwrap().status, 202, "{message}");
        }
        let repeated = member.post(&event(&large)).await.unwrap().status;
        assert!([202, 429].contains(&repeated), "{repeated}");
    }

    eventually("all events are delivered", async || {
        (receiver.accepted().len() >= 8).then_some(())
    })
    .await;
    for process in hub.iter().chain(&members) {
        assert_eq!(process.readiness().await.status, 200);
        assert_permitted(process);
    }
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_and_a_rotated_one_works() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    let file = fleet.credentials("dev-1");
    let former = fleet.rig.folder().join("former.creds");
    std::fs::copy(&file, &former).unwrap();
    let url = fleet.rig.url();

    assert_eq!(fleet.run(&["revoke", "dev-1"]).await.lines().len(), 1);
    ingest.is_not_ready("bus", "").await;
    assert_refused(url, &file).await;

    assert_eq!(fleet.run(&["rotate", "dev-1"]).await.lines().len(), 1);
    // The ingest reads the new credentials without a restart.
    ingest.ready().await;
    assert_eq!(ingest.post(&event("again")).await.unwrap().status, 202);
    assert_refused(url, &former).await;

    std::fs::copy(&file, &former).unwrap();
    assert_eq!(fleet.run(&["rotate", "dev-1"]).await.lines().len(), 1);
    assert_refused(url, &former).await;
    Intruder::connect(url, &file).await;

    assert!(
        !fleet
            .run(&["remove", "dev-1", "--yes"])
            .await
            .lines()
            .is_empty()
    );
    fleet
        .run(&["rotate", "dev-1"])
        .await
        .assert_error_names(&["dev-1", "not found"]);
}

#[tokio::test]
async fn a_rotation_also_revokes_credentials_that_no_record_names() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let bucket = fleet
        .streams()
        .await
        .get_key_value("clusters")
        .await
        .unwrap();
    let record = bucket.get("dev-1").await.unwrap().unwrap();
    assert_eq!(fleet.run(&["rotate", "dev-1"]).await.lines().len(), 1);
    let unknown = fleet.rig.folder().join("unknown.creds");
    std::fs::copy(fleet.credentials("dev-1"), &unknown).unwrap();
    // As if the rotation had failed before it stored the record.
    bucket.put("dev-1", record).await.unwrap();

    assert_eq!(fleet.run(&["rotate", "dev-1"]).await.lines().len(), 1);

    assert_refused(fleet.rig.url(), &unknown).await;
    Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
}

#[tokio::test]
async fn an_update_issues_the_same_keys_again_and_keeps_revocations() {
    let fleet = Fleet::start().await;
    for name in ["dev-1", "gone"] {
        fleet.add(name).await;
    }
    fleet.run(&["revoke", "gone"]).await.lines();
    let files = ["dev-1", "router", "tools"].map(|name| fleet.credentials(name));
    let secret = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        section(&text, "USER NKEY SEED").unwrap().to_owned()
    };
    let before = files.each_ref().map(secret);

    assert_eq!(fleet.run(&["update"]).await.lines().len(), 1);

    assert_eq!(before, files.each_ref().map(secret));
    assert_refused(fleet.rig.url(), &fleet.credentials("gone")).await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    assert_eq!(ingest.post(&event("updated")).await.unwrap().status, 202);
}

/// Asserts that the server accepts no connection with these credentials.
async fn assert_refused(url: &str, file: &std::path::Path) {
    let credentials = std::fs::read_to_string(file).unwrap();
    let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
    let error = options.connect(url).await.unwrap_err();
    let error = error.to_string().to_lowercase();
    assert!(error.contains("authorization violation"), "{error}");
}

#[tokio::test]
async fn the_record_of_a_cluster_has_what_the_operator_gave() {
    let fleet = Fleet::start().await;
    let added = fleet
        .run(&[
            "add",
            "prod-eu",
            "--label",
            "env=prod",
            "--visible-to",
            "team-a",
            "--visible-to",
            "team-b",
            "--events-per-second",
            "50",
            "--bytes-per-second",
            "1000000",
            "--dashboard",
            "https://dash.example.com/prod-eu",
        ])
        .await;
    assert_eq!(added.lines().len(), 1);
    assert_eq!(mode(&fleet.credentials("prod-eu")), 0o600);
    assert_eq!(mode(&fleet.dir.join("keys/operator.nk")), 0o600);
    let labeled = fleet.run(&["label", "prod-eu", "region=eu", "env-"]).await;
    assert_eq!(labeled.lines().len(), 1);

    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();

    let cluster = &listed[0];
    assert_eq!(listed.len(), 1);
    assert_eq!(cluster["name"], "prod-eu");
    assert_eq!(cluster["labels"], serde_json::json!({"region": "eu"}));
    assert_eq!(
        cluster["visibleTo"],
        serde_json::json!(["team-a", "team-b"])
    );
    assert_eq!(cluster["eventsPerSecond"], 50);
    assert_eq!(cluster["bytesPerSecond"], 1_000_000);
    assert_eq!(cluster["dashboard"], "https://dash.example.com/prod-eu");
    assert!(cluster["publicKey"].as_str().unwrap().starts_with('U'));
    assert!(cluster["revokedAt"].is_null());
}

#[tokio::test]
async fn invalid_arguments_are_refused_with_their_name() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    for (arguments, names) in [
        (&["add", "dev-1"][..], &["dev-1", "exists"][..]),
        (&["add", "a/b"], &["a/b"]),
        (&["add", "dev.*"], &["dev.*"]),
        (&["add", "dev-2", "--label", "env"], &["env", "KEY=VALUE"]),
        (&["rotate", "other"], &["other", "not found"]),
        (&["revoke", "other"], &["other", "not found"]),
        (&["remove", "other"], &["other", "not found"]),
        (&["label", "other", "a=b"], &["other", "not found"]),
    ] {
        fleet.run(arguments).await.assert_error_names(names);
    }
    let dir = text(&fleet.dir);
    crate::command::tidings(&["fleet", "init", dir])
        .await
        .assert_error_names(&[dir, "not empty"]);
    crate::command::tidings(&["fleet", "list", "--dir", "nowhere"])
        .await
        .assert_error_names(&["nowhere", "fleet init"]);
}

#[tokio::test]
async fn credentials_of_a_member_are_for_the_ingest_of_their_cluster() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let url = fleet.rig.url();
    let file = fleet.credentials("dev-1");
    let variables = [("TIDINGS_NATS__CREDENTIALS", text(&file))];
    let local = ["--nats", url, "--admin", "127.0.0.1:0"];
    let ingest = ["ingest", "--cluster", "prod-eu", "--listen", "127.0.0.1:0"];
    let ended = tidings_with(&variables, &[&ingest[..], &local].concat()).await;
    assert!(
        ended.stderr.contains("issued for cluster \"dev-1\""),
        "{ended:?}"
    );
    let rules = fleet.rig.rules().folder();
    let router = ["router", "--rules", text(rules)];
    let ended = tidings_with(&variables, &[&router[..], &local].concat()).await;
    assert!(ended.stderr.contains("\"dev-1\""), "{ended:?}");
}

/// Stores what routers report, in their place.
async fn report(hub: &async_nats::jetstream::Context, state: EventsState) {
    let stored = hub.publish("$KV.hub.events", state.encode_to_vec().into());
    stored.await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_member_takes_the_state_of_the_hub_from_its_record() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let ingest = fleet.rig.spawn(fleet.ingest("dev-1"));
    ingest.is_not_ready("bus", "no router or worker").await;
    let hub = fleet.streams().await;
    let good = EventsState {
        created: Some(to_proto(jiff::Timestamp::now())),
        dedupe_interval_ms: 300_000,
        storage_used: 1,
        storage_limit: 100,
        ..EventsState::default()
    };
    report(&hub, good.clone()).await;
    ingest.ready().await;
    assert_eq!(ingest.post(&event("good")).await.unwrap().status, 202);
    let full = EventsState {
        storage_used: 95,
        ..good.clone()
    };
    let broken = EventsState {
        write_error: "stream EVENTS: no space left".to_owned(),
        ..good.clone()
    };
    let behind = EventsState {
        messages: 10,
        bytes: 1000,
        max_bytes: 1000,
        last_sequence: 10,
        ..good.clone()
    };
    for (state, code) in [
        (full, "storage-full"),
        (broken, "storage-failed"),
        (behind, "router-behind"),
    ] {
        report(&hub, state).await;
        eventually(&format!("the member answers {code}"), async || {
            let answer = ingest.post(&event(code)).await.ok()?;
            (answer.status == 503 && answer.code() == code).then_some(())
        })
        .await;
        if code == "storage-failed" {
            ingest.is_not_ready("storage", "no space left").await;
        }
    }
    report(&hub, good).await;
    ingest.ready().await;
    eventually("the member stores events again", async || {
        let answer = ingest.post(&event("good again")).await.ok()?;
        (answer.status == 202).then_some(())
    })
    .await;
    assert_permitted(&ingest);
}

#[tokio::test]
async fn a_hub_with_tls_accepts_its_roles_and_members() {
    let authority = Authority::new();
    let fleet = Fleet::start_with(|folder| {
        let (certificate, key) = authority.certificate_for("127.0.0.1");
        let [cert_file, key_file] = ["hub.pem", "hub-key.pem"].map(|name| folder.join(name));
        std::fs::write(&cert_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        let files = [
            ("--tls-cert", cert_file),
            ("--tls-key", key_file),
            ("--tls-ca", authority.file()),
        ];
        files
            .map(|(flag, file)| [flag.to_owned(), text(&file).to_owned()])
            .concat()
    })
    .await;
    fleet.add("dev-1").await;
    let ca = authority.file();
    let with_tls = |role: Role, name| {
        let role = role.env("TIDINGS_NATS__TLS__CA", text(&ca));
        fleet.with_credentials(role, name)
    };
    let _router = fleet.rig.run(with_tls(Role::router(), "router")).await;
    let ingest = Role::ingest().args(["--cluster", "dev-1"]);
    let ingest = fleet.rig.run(with_tls(ingest, "dev-1")).await;
    assert_eq!(ingest.post(&event("over TLS")).await.unwrap().status, 202);
}

#[tokio::test]
async fn the_quota_of_a_member_is_changed_while_it_runs() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;

    let set = fleet
        .run(&["set", "dev-1", "--events-per-second", "1"])
        .await;

    assert_eq!(set.status, Some(0), "{set:?}");
    let changed = ingest.logs("quota-changed").await;
    assert_eq!(changed.field("events_per_second"), "1");
    let mut codes = Vec::new();
    for number in 0..30 {
        codes.push(
            ingest
                .post(&event(&number.to_string()))
                .await
                .unwrap()
                .code(),
        );
    }
    assert!(codes.contains(&"quota-exceeded".to_owned()), "{codes:?}");
    assert_permitted(&ingest);
}

#[tokio::test]
async fn a_member_cannot_have_the_name_of_a_user_of_the_hub() {
    let fleet = Fleet::start().await;
    for name in ["router", "worker", "tools", "bridge", "system"] {
        let file = fleet.credentials(name);
        let before = std::fs::read(&file).unwrap();
        let added = fleet.run(&["add", name]).await;
        assert_eq!(added.status, Some(2), "{added:?}");
        assert_eq!(std::fs::read(&file).unwrap(), before, "{name}");
    }
}

#[tokio::test]
async fn a_bridge_works_with_the_credentials_of_the_hub() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let bridge = Role::bridge().args(["--name", "audit", "--url", receiver.url()]);
    let bridge = fleet
        .rig
        .run(fleet.with_credentials(bridge, "bridge"))
        .await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;

    assert_eq!(ingest.post(&event("forwarded")).await.unwrap().status, 202);

    receiver.receives(1).await;
    eventually("the event is acknowledged", async || {
        let forwarded = bridge.metric("tidings_bridge_events_total", "forwarded");
        (forwarded.await >= 1.0).then_some(())
    })
    .await;
    assert_permitted(&bridge);
}
