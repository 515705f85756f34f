//! A member with an edge whose link is cut.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidings_rig::{Cable, Process, Receiver, event, eventually};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bed::{Fleet, MEMBERS};
use super::{messages, rules};

/// How long the link is cut.
const CUT_FOR: Duration = Duration::from_secs(60);
/// The pause between two events of a member.
const PAUSE: Duration = Duration::from_millis(100);
const OBJECTS: usize = 3;

fn of_object(member: &str, object: usize, number: usize) -> Value {
    let mut event = event(&format!("{member} app-{object} number {number}"));
    event["involvedObject"]["name"] = format!("app-{object}").into();
    event["involvedObject"]["uid"] = "".into();
    event
}

/// Posts events about several objects in turn until `stop`. Each is accepted.
async fn post_until(
    member: Process,
    name: &str,
    stop: CancellationToken,
) -> (Process, Vec<String>) {
    let mut posted = Vec::new();
    let mut due = Instant::now();
    while !stop.is_cancelled() {
        let event = of_object(name, posted.len() % OBJECTS, posted.len());
        let answer = member.post(&event).await.expect("ingest responds");
        assert_eq!(answer.status, 202, "{event}: {}", answer.body);
        posted.push(event["message"].as_str().unwrap_or_default().to_owned());
        due += PAUSE;
        sleep_until(due).await;
    }
    (member, posted)
}

/// The messages of each object, in their order.
fn by_object(messages: &[String]) -> BTreeMap<String, Vec<&String>> {
    let mut objects = BTreeMap::<_, Vec<_>>::new();
    for message in messages {
        let (object, _) = message.split_once(" number ").expect("it has a number");
        objects.entry(object.to_owned()).or_default().push(message);
    }
    objects
}

fn sorted(mut messages: Vec<String>) -> Vec<String> {
    messages.sort();
    messages
}

/// How many messages of a member a receiver got.
fn count(receiver: &Receiver, member: &str) -> usize {
    let messages = messages(receiver);
    messages.iter().filter(|it| it.starts_with(member)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_for_a_minute_under_load_loses_nothing_repeats_nothing_and_keeps_the_order() {
    let fleet = Fleet::start().await;
    let [hub, eu, us] = [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ];
    fleet.hub.apply(&rules(hub.url())).await;
    fleet.eu.apply(&rules(eu.url())).await;
    fleet.us.apply(&rules(us.url())).await;
    let _roles = fleet.roles().await;
    let cable = Cable::to(fleet.rig.url()).await;
    let edge = fleet.rig.run(fleet.edge("eu", &cable)).await;
    edge.logs("edge-connected").await;
    let direct = fleet.rig.run(fleet.member("us")).await;
    let stop = CancellationToken::new();
    let posting = [edge, direct].into_iter().zip(MEMBERS);
    let posting: Vec<_> = posting
        .map(|(member, name)| tokio::spawn(post_until(member, name, stop.clone())))
        .collect();
    for member in MEMBERS {
        eventually("events of both members are delivered", async || {
            (count(&hub, member) > OBJECTS).then_some(())
        })
        .await;
    }

    cable.cut();
    let restored = Instant::now() + CUT_FOR;
    let before = count(&us, "us");
    eventually("the other member is not delayed", async || {
        (count(&us, "us") > before + 20).then_some(())
    })
    .await;
    sleep_until(restored).await;
    let at_most = count(&hub, "us");
    assert!(count(&hub, "eu") < at_most / 2, "the link was cut");
    cable.restore();
    sleep(Duration::from_secs(2)).await;
    stop.cancel();

    let (mut members, mut posted) = (Vec::new(), Vec::new());
    for posting in posting {
        let (member, messages) = posting.await.expect("each event is accepted");
        members.push(member);
        posted.push(messages);
    }
    let all: Vec<_> = posted.concat();
    fleet.has_stored(all.len()).await;
    fleet.drained().await;
    assert_eq!(messages(&hub), sorted(all.clone()));
    assert_eq!(messages(&eu), sorted(posted[0].clone()));
    assert_eq!(messages(&us), sorted(posted[1].clone()));
    let stored = fleet.stored().await;
    assert_eq!(by_object(&stored), by_object(&all));
    drop(members);
}
