use tokio::time;

use super::*;
use crate::Severity;
use crate::options::Options;
use crate::testing::alert;

fn source(origin: RulesOrigin) -> RulesSource {
    RulesSource {
        origin,
        live: Arc::default(),
    }
}

fn member(name: &str) -> RulesSource {
    source(RulesOrigin::Member(name.into()))
}

fn rules(name: &str) -> Rules {
    Rules::compile(&[alert(name, "p").object()], &[], &Options::default())
}

fn problem(text: &str) -> Problem {
    Problem {
        file: None,
        line: None,
        object: None,
        field: None,
        message: text.to_owned(),
        severity: Severity::Error,
    }
}

fn start(sources: &[RulesSource]) -> Arc<LiveRules> {
    let merged = Arc::new(LiveRules::default());
    let follow = follow(sources.to_vec(), merged.clone(), CancellationToken::new());
    tokio::spawn(follow);
    merged
}

/// Lets the tasks run for a while.
async fn pass(time: Duration) {
    time::sleep(time).await;
}

const MOMENT: Duration = Duration::from_millis(10);

async fn until(live: &LiveRules, condition: impl Fn(&Rules) -> bool) {
    let mut changes = live.changes();
    while !(live.loaded() && condition(&live.current())) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_read_delays_the_first_rules_for_a_while_and_no_later_ones() {
    let (hub, eu, us) = (source(RulesOrigin::Hub), member("eu"), member("us"));
    let merged = start(&[hub.clone(), eu.clone(), us.clone()]);
    eu.live.replace(rules("of-eu"));
    pass(MEMBERS_WAIT * 2).await;
    assert!(!merged.loaded(), "the hub's own rules are required");

    hub.live.replace(rules("first"));
    pass(MOMENT).await;
    assert!(!merged.loaded(), "members may take as long as the hub");
    until(&merged, |rules| rules.alert("apps", "first").is_some()).await;
    let now = merged.current();
    assert!(now.alert("eu:apps", "of-eu").is_some());
    assert!(now.is_unread("us") && !now.is_unread("eu"));

    hub.live.replace(rules("second"));
    until(&merged, |rules| rules.alert("apps", "second").is_some()).await;
    us.live.replace(rules("of-us"));
    until(&merged, |rules| rules.alert("us:apps", "of-us").is_some()).await;
    assert!(!merged.current().is_unread("us"));
}

#[tokio::test(start_paused = true)]
async fn rules_take_effect_at_once_when_all_sources_are_read() {
    let (hub, eu) = (source(RulesOrigin::Hub), member("eu"));
    let merged = start(&[hub.clone(), eu.clone()]);
    hub.live.replace(rules("own"));
    pass(MOMENT).await;
    assert!(!merged.loaded());
    eu.live.replace(rules("of-eu"));
    let started = Instant::now();
    until(&merged, |rules| rules.alerts().len() == 2).await;
    assert!(started.elapsed() < MEMBERS_WAIT);
}

#[tokio::test(start_paused = true)]
async fn the_problems_of_all_sources_are_shown_with_the_cluster() {
    let (hub, eu) = (source(RulesOrigin::Hub), member("eu"));
    let merged = start(&[hub.clone(), eu.clone()]);
    hub.live.replace(rules("own"));
    eu.live.replace(rules("of-eu"));
    until(&merged, |rules| rules.alerts().len() == 2).await;
    pass(MOMENT).await;
    assert_eq!(merged.source_problem(), None);

    let mut problems = merged.source_problems();
    problems.mark_unchanged();
    eu.live.set_source_problem(Some(problem("no answer")));
    problems.changed().await.unwrap();
    let shown = merged.source_problem().unwrap().to_string();
    assert_eq!(shown, "cluster eu: no answer");
    assert!(merged.current().alert("eu:apps", "of-eu").is_some());
    eu.live.set_source_problem(None);
    problems.changed().await.unwrap();
    assert_eq!(merged.source_problem(), None);
}
