//! Comments on change requests: one comment an object, and no more calls than it takes.

use serde_json::{Value, json};
use tidings_rig::{Forge, LOGIN, Process, Rig, Role, alert, event};

use crate::states::{self, post_all};

const MARK: &str = "<!-- flux-pr-comment-key:";

async fn rig(forge: &Forge) -> Rig {
    let rig = states::rig().await;
    rig.rules().put([
        forge.provider("githubpullrequestcomment"),
        alert("comments", "forge"),
    ]);
    rig
}

/// What a Kustomization says of change request 42, so many seconds into an hour.
fn said(second: u32, message: &str, reason: &str) -> Value {
    let mut event = event(message);
    event["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
    event["reason"] = reason.into();
    event["metadata"] = json!({"event.toolkit.fluxcd.io/change_request": "42"});
    event
}

/// The comments with the mark.
fn ours(forge: &Forge) -> Vec<String> {
    let texts = forge
        .contents()
        .comments
        .iter()
        .filter_map(|(_, text)| text.clone())
        .collect::<Vec<_>>();
    texts
        .into_iter()
        .filter(|text| text.starts_with(MARK))
        .collect()
}

/// Posts an event, and tells how many calls it came to.
async fn calls_for(forge: &Forge, rig: &Rig, up: &Process, event: Value) -> usize {
    let before = forge.calls();
    post_all(up, [event]).await;
    rig.drained().await;
    forge.calls() - before
}

#[tokio::test]
async fn an_update_costs_one_call_and_an_unchanged_text_none() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;

    assert_eq!(
        calls_for(&forge, &rig, &up, said(1, "first", "Applied")).await,
        3,
        "who we are, the list, and the comment"
    );
    assert_eq!(
        calls_for(&forge, &rig, &up, said(2, "second", "Applied")).await,
        1
    );
    assert_eq!(
        calls_for(&forge, &rig, &up, said(3, "second", "AppliedAgain")).await,
        0
    );
    assert_eq!(ours(&forge).len(), 1);
    assert!(ours(&forge)[0].contains("second"));
}

#[tokio::test]
async fn a_comment_is_found_by_its_mark_on_any_page_and_an_equal_one_is_left() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;
    let others = || (0..250).map(|number| ("human".to_owned(), Some(format!("comment {number}"))));
    forge.contents().comments.extend(others());
    post_all(&up, [said(1, "first", "Applied")]).await;
    rig.drained().await;
    forge.contents().comments.extend(others());

    rig.jetstream()
        .await
        .delete_key_value("latest")
        .await
        .expect("the bucket is there");
    assert_eq!(
        calls_for(&forge, &rig, &up, said(2, "first", "AppliedAgain")).await,
        3,
        "three pages of a hundred"
    );
    rig.jetstream()
        .await
        .delete_key_value("latest")
        .await
        .expect("the bucket is there");
    assert_eq!(
        calls_for(&forge, &rig, &up, said(3, "second", "Applied")).await,
        4,
        "three pages, and the edit"
    );
    assert_eq!(ours(&forge).len(), 1);
}

#[tokio::test]
async fn a_comment_that_somebody_deleted_is_made_anew_once() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;
    post_all(&up, [said(1, "first", "Applied")]).await;
    rig.drained().await;

    forge.contents().comments[0].1 = None;
    for (second, message) in [(2, "second"), (3, "third")] {
        post_all(&up, [said(second, message, "Applied")]).await;
        rig.drained().await;
    }

    assert_eq!(ours(&forge).len(), 1);
    assert!(ours(&forge)[0].contains("third"));
}

#[tokio::test]
async fn two_workers_never_make_two_comments() {
    let forge = Forge::start().await;
    forge.contents().slowest_answer = std::time::Duration::from_millis(100);
    let rig = rig(&forge).await;
    let (router, ingest) = (rig.spawn(Role::router()), rig.spawn(Role::ingest()));
    router.ready().await;
    ingest.ready().await;
    // They are there before the workers are, so that both begin at once.
    post_all(
        &ingest,
        (0..40).map(|second| said(second, &format!("at {second}"), "Applied")),
    )
    .await;
    let workers = [rig.spawn(Role::worker()), rig.spawn(Role::worker())];
    for worker in &workers {
        worker.ready().await;
    }
    rig.drained().await;

    let comments = forge.contents().comments.clone();
    assert_eq!(comments.len(), 1, "{comments:?}");
    assert_eq!(comments[0].0, LOGIN);
    assert!(ours(&forge)[0].contains("at 39"), "{comments:?}");
    let made = forge
        .contents()
        .writes
        .iter()
        .filter(|(what, _)| what == "made")
        .count();
    assert_eq!(made, 1);
}
