use tidings_core::model::access::matches;

use super::*;

fn may(user: &User, subject: &str) -> bool {
    user.allowed().iter().any(|filter| matches(filter, subject))
}

#[test]
fn a_member_may_publish_only_with_its_own_token() {
    let member = User::Member("dev.1".to_owned());
    for (subject, expected) in [
        ("events.dev=2E1.apps.Kustomization.info", true),
        ("events.dev.apps.Kustomization.info", false),
        ("$KV.heartbeats.dev=2E1.ingest.a", true),
        ("$KV.heartbeats.prod.ingest.a", false),
        ("$JS.API.DIRECT.GET.EVENTS", false),
        ("tidings.api.DIRECT.GET.EVENTS", false),
        ("tidings.api.STREAM.INFO.EVENTS", false),
        (
            "tidings.api.CONSUMER.CREATE.EVENTS.router.events.dev=2E1.>",
            false,
        ),
        (
            "tidings.api.CONSUMER.CREATE.EVENTS.ingest-dev=2E1-0.events.dev=2E1.a.b.*",
            true,
        ),
        (
            "tidings.api.CONSUMER.CREATE.EVENTS.ingest-dev=2E1-0.events.prod.>",
            false,
        ),
    ] {
        assert_eq!(may(&member, subject), expected, "{subject}");
    }
    assert_eq!(member.subscribe(), ["_INBOX_dev=2E1.>"]);
}

#[test]
fn a_service_of_a_member_has_the_same_subject_in_the_hub_except_for_the_api() {
    let member = User::Member("dev".to_owned());
    let services = member.services();
    assert_eq!(services.len(), member.allowed().len());
    for service in services {
        let exported = exports()
            .iter()
            .any(|(filter, _)| matches(filter, &service.hub) || *filter == service.hub);
        assert!(exported, "{}", service.hub);
        assert!(!service.local.starts_with("$JS."), "{}", service.local);
        // The server does not check the body.
        assert!(
            !service.hub.contains("$JS.API.CONSUMER.CREATE"),
            "{}",
            service.hub
        );
    }
}

#[test]
fn a_role_of_the_hub_reports_its_own_processes_only() {
    let pool_worker = User::PoolWorker {
        name: "near".to_owned(),
        pool: "edge".to_owned(),
    };
    for (user, own) in [
        (User::Router, "router"),
        (User::Worker, "worker"),
        (User::Bridge, "bridge"),
        (pool_worker, "worker"),
    ] {
        for (subject, role) in ["router", "worker", "bridge", "ingest"]
            .map(|role| (format!("$KV.heartbeats.=.{role}.a"), role))
        {
            assert_eq!(may(&user, &subject), role == own, "{user:?} {subject}");
        }
        for subject in ["$KV.heartbeats.dev.ingest.a", "$KV.heartbeats.=.bridge.a.b"] {
            assert!(!may(&user, subject), "{user:?} {subject}");
        }
    }
}

#[test]
fn no_role_may_change_or_delete_the_streams_of_events_and_deliveries() {
    for (name, user) in User::HUB {
        for subject in [
            "$JS.API.STREAM.DELETE.EVENTS",
            "$JS.API.STREAM.DELETE.DELIVERIES",
            "$JS.API.STREAM.PURGE.EVENTS",
            "$JS.API.STREAM.PURGE.DELIVERIES",
            "events.prod.apps.Kustomization.info",
        ] {
            assert!(!may(&user, subject), "{name} {subject}");
        }
    }
    assert!(!may(&User::Router, "dead.slack.apps.a"));
    assert!(!may(&User::Worker, "$JS.API.CONSUMER.CREATE.EVENTS.router"));
    assert!(!may(&User::Router, "$KV.clusters.dev"));
    assert!(!may(&User::Worker, "$KV.clusters.dev"));
}
