//! The bucket of the extension fields that Alerts and Providers had.

use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect;
use tidings_core::bus::extensions::ExtensionRecords;
use tidings_core::runtime::config::{Flag, Settings, Sources};
use tidings_core::wire::RuleExtensions;
use tidings_rig::{Rig, Role};

use crate::TIDINGS;

/// A connection to the rig's server.
pub async fn bus(rig: &Rig) -> Bus {
    let url = Flag {
        name: "--nats".into(),
        key: "nats.url".into(),
        value: rig.url().into(),
    };
    let sources = Sources {
        flags: vec![url],
        ..Sources::default()
    };
    let settings = Settings::load(&sources).expect("the address is valid");
    let bus = connect(&settings.nats, "test").await;
    bus.expect("the server runs")
}

async fn records(rig: &Rig) -> ExtensionRecords {
    ExtensionRecords::open(&bus(rig).await, None)
        .await
        .expect("a role created the bucket")
}

#[tokio::test]
async fn a_bucket_that_is_deleted_while_no_role_runs_is_logged() {
    let rig = Rig::start(TIDINGS).await;
    let roles = [Role::router(), Role::worker()];
    let [mut router, mut worker] = rig.run_all(roles).await;
    for role in [&router, &worker] {
        let missing = role.log_events("extensions-missing");
        assert!(missing.is_empty(), "the first start");
    }
    router.terminate().await;
    worker.terminate().await;
    let jetstream = rig.jetstream().await;
    let deleted = jetstream.delete_key_value("extensions").await;
    deleted.expect("the bucket exists");

    let router = rig.run(Role::router()).await;

    router.logs("extensions-missing").await;
    let worker = rig.run(Role::worker()).await;
    let missing = worker.log_events("extensions-missing");
    assert!(missing.is_empty(), "it exists again");
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_overwritten() {
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let records = records(&rig).await;
    let record = RuleExtensions {
        uid: "u".into(),
        fields: vec!["clusters".into()],
        ..RuleExtensions::default()
    };
    let revision = records.store(&record, None).await.expect("NATS answers");
    assert!(revision.is_some());
    let again = records.store(&record, None).await.expect("NATS answers");
    assert_eq!(again, None, "a record of another process stays");

    let jetstream = rig.jetstream().await;
    let bucket = jetstream.get_key_value("extensions").await;
    let put = bucket.expect("it exists").put("u", "\u{7f}".into()).await;
    put.expect("NATS answers");
    assert_eq!(records.all().await.expect("NATS answers"), []);

    let revision = records.store(&record, None).await.expect("NATS answers");
    assert!(revision.is_some());
    let stored = records.all().await.expect("NATS answers");
    assert_eq!(stored[0].record, record);
}

#[tokio::test]
async fn the_records_of_each_cluster_are_its_own_even_with_equal_uids() {
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let bus = bus(&rig).await;
    let mut of_clusters = Vec::new();
    for member in [None, Some("eu"), Some("e.u")] {
        let records = ExtensionRecords::open(&bus, member).await;
        of_clusters.push((member, records.expect("a role created the bucket")));
    }
    let record = |member: Option<&str>| RuleExtensions {
        uid: "cloned".into(),
        fields: vec![member.unwrap_or("hub").to_owned()],
        ..RuleExtensions::default()
    };
    for (member, records) in &of_clusters {
        let stored = records.store(&record(*member), None).await;
        assert!(stored.expect("NATS answers").is_some(), "{member:?}");
    }
    let (_, first) = &of_clusters[1];
    first.remove("cloned").await.expect("NATS answers");
    for (member, records) in &of_clusters {
        let all = records.all().await.expect("NATS answers");
        let all: Vec<_> = all.into_iter().map(|stored| stored.record).collect();
        let is_removed = *member == Some("eu");
        let expected = if is_removed {
            vec![]
        } else {
            vec![record(*member)]
        };
        assert_eq!(all, expected, "{member:?}");
    }
}

#[tokio::test]
async fn the_hub_and_each_member_read_their_own_records_all_at_once() {
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let bus = bus(&rig).await;
    let open = async |member| {
        ExtensionRecords::open(&bus, member)
            .await
            .expect("it exists")
    };
    let all = [
        open(None).await,
        open(Some("prod.eu")).await,
        open(Some("prod")).await,
    ];
    for (number, records) in all.iter().enumerate() {
        for uid in ["u", "v", "gone"] {
            let record = RuleExtensions {
                uid: uid.into(),
                generation: i64::try_from(number).expect("a small number"),
                ..RuleExtensions::default()
            };
            let stored = records.store(&record, None).await.expect("NATS answers");
            assert!(stored.is_some());
        }
        records.remove("gone").await.expect("NATS answers");
    }

    for (number, records) in all.iter().enumerate() {
        let stored = records.all().await.expect("NATS answers");
        let mut found: Vec<_> = stored
            .iter()
            .map(|stored| (stored.record.uid.as_str(), stored.record.generation))
            .collect();
        found.sort_unstable();
        let number = i64::try_from(number).expect("a small number");
        assert_eq!(found, [("u", number), ("v", number)]);
        // The revisions are those that a change needs.
        let first = &stored[0];
        let changed = records.store(&first.record, Some(first.revision)).await;
        assert!(changed.expect("NATS answers").is_some());
    }
}
