//! API servers that are down.

use tidings_rig::{ONE_FOR_EACH_POST, Process, Receiver, event, eventually};

use super::bed::{Fleet, MEMBERS};
use super::{messages, rules, source_up};

async fn post(members: &[Process; 2], text: &str) {
    for (name, member) in MEMBERS.iter().zip(members) {
        let response = member.post(&event(&format!("{text} of {name}"))).await;
        assert_eq!(response.expect("ingest responds").status, 202);
    }
}

async fn is_up(process: &Process, source: &str, value: f64) {
    let what = format!("the source {source} has the state {value}");
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    eventually(&what, async || {
        (source_up(process, source).await == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_member_whose_api_server_is_down_delays_no_other() {
    let mut fleet = Fleet::start().await;
    let [hub, eu, us] = [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ];
    fleet.hub.apply(&rules(hub.url())).await;
    fleet.eu.apply(&rules(eu.url())).await;
    fleet.us.apply(&rules(us.url())).await;

    // One that hangs when the roles start is waited for, and then left out.
    let mut roles = {
        let configured = fleet.configured_roles().await;
        fleet.us.server.freeze();
        configured.map(|role| fleet.rig.spawn(role))
    };
    for process in &roles {
        process.ready().await;
        process
            .logs_with("member-rules-unread", [("source", "us")])
            .await;
        is_up(process, "us", 0.0).await;
        is_up(process, "eu", 1.0).await;
        let readiness = process.readiness().await;
        let problem = readiness.problem("rules").unwrap_or_default();
        assert!(problem.contains("cluster us"), "{readiness:?}");
    }
    let members = fleet.members().await;
    post(&members, "first").await;
    fleet.drained().await;
    assert_eq!(messages(&hub), ["first of eu", "first of us"]);
    assert_eq!(messages(&eu), ["first of eu"]);

    assert_eq!(messages(&us), Vec::<String>::new());
    roles[0]
        .counts("tidings_router_events_postponed_total", "", 1.0)
        .await;

    // It is used as soon as it answers, also for events that were routed without it, even by a
    // router that was killed.
    roles[0].kill().await;
    roles[0].restart().await;
    fleet.us.server.thaw();
    for process in &roles {
        is_up(process, "us", 1.0).await;
    }
    roles[0].logs_with("caught-up", [("source", "us")]).await;
    us.accepts("first of us").await;
    post(&members, "second").await;
    fleet.drained().await;
    assert_eq!(messages(&us), ["first of us", "second of us"]);
    let of_hub = messages(&hub);
    assert_eq!(of_hub.len(), 4, "nothing is delivered twice: {of_hub:?}");

    // One that ends later keeps its last rules, and others change meanwhile.
    fleet.eu.server.kill();
    is_up(&roles[0], "eu", 0.0).await;
    let changed = Receiver::start().await;
    fleet.hub.apply(&rules(changed.url())).await;
    let mut number = 0;
    eventually("the hub's rules change", async || {
        number += 1;
        post(&members, &format!("third {number}")).await;
        (changed.count() > 0).then_some(())
    })
    .await;
    fleet.drained().await;
    let of_eu = messages(&eu);
    assert!(
        of_eu.contains(&format!("third {number} of eu")),
        "{of_eu:?}"
    );
    assert!(!of_eu.iter().any(|it| it.ends_with("of us")), "{of_eu:?}");
    fleet
        .rig
        .leaves_deliveries(ONE_FOR_EACH_POST, "posts continue until the rules changed");
}
