//! Comments on change requests: one comment for each object, and no unnecessary calls.

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

/// An event of a Kustomization for change request 42, `second` seconds after 03:00.
fn about_change(second: u32, message: &str, reason: &str) -> Value {
    let mut event = event(message);
    event["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
    event["reason"] = reason.into();
    event["metadata"] = json!({"event.toolkit.fluxcd.io/change_request": "42"});
    event
}

/// The texts of the comments that Tidings wrote.
fn own_comments(forge: &Forge) -> Vec<String> {
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

/// Posts an event, and returns the number of calls that it caused.
async fn calls_for(forge: &Forge, rig: &Rig, up: &Process, event: Value) -> usize {
    let before = forge.calls();
    post_all(up, [event]).await;
    rig.drained().await;
    forge.calls() - before
}

#[tokio::test]
async fn a_changed_text_needs_one_call_and_an_unchanged_text_none() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;

    assert_eq!(
        calls_for(&forge, &rig, &up, about_change(1, "first", "Applied")).await,
        3,
        "its own login, the list, and the new comment"
    );
    assert_eq!(
        calls_for(&forge, &rig, &up, about_change(2, "second", "Applied")).await,
        1
    );
    assert_eq!(
        calls_for(&forge, &rig, &up, about_change(3, "second", "AppliedAgain")).await,
        0
    );
    assert_eq!(own_comments(&forge).len(), 1);
    assert!(own_comments(&forge)[0].contains("second"));
}

#[tokio::test]
async fn a_comment_is_found_on_any_page_and_an_equal_one_is_not_edited() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;
    let others = || (0..250).map(|number| ("human".to_owned(), Some(format!("comment {number}"))));
    forge.contents().comments.extend(others());
    post_all(&up, [about_change(1, "first", "Applied")]).await;
    rig.drained().await;
    forge.contents().comments.extend(others());

    rig.jetstream()
        .await
        .delete_key_value("latest")
        .await
        .expect("the bucket exists");
    assert_eq!(
        calls_for(&forge, &rig, &up, about_change(2, "first", "AppliedAgain")).await,
        3,
        "three pages of a hundred"
    );
    rig.jetstream()
        .await
        .delete_key_value("latest")
        .await
        .expect("the bucket exists");
    assert_eq!(
        calls_for(&forge, &rig, &up, about_change(3, "second", "Applied")).await,
        4,
        "three pages, and the edit"
    );
    assert_eq!(own_comments(&forge).len(), 1);
}

#[tokio::test]
async fn a_deleted_comment_is_recreated_once() {
    let forge = Forge::start().await;
    let rig = rig(&forge).await;
    let up = rig.run(Role::up()).await;
    post_all(&up, [about_change(1, "first", "Applied")]).await;
    rig.drained().await;

    forge.contents().comments[0].1 = None;
    for (second, message) in [(2, "second"), (3, "third")] {
        post_all(&up, [about_change(second, message, "Applied")]).await;
        rig.drained().await;
    }

    assert_eq!(own_comments(&forge).len(), 1);
    assert!(own_comments(&forge)[0].contains("third"));
}

#[tokio::test]
async fn two_workers_never_create_two_comments() {
    let forge = Forge::start().await;
    forge.contents().slowest_response = std::time::Duration::from_millis(100);
    let rig = rig(&forge).await;
    let (router, ingest) = (rig.spawn(Role::router()), rig.spawn(Role::ingest()));
    router.ready().await;
    ingest.ready().await;
    // The deliveries exist before the workers start, so that both workers compete for them.
    post_all(
        &ingest,
        (0..40).map(|second| about_change(second, &format!("at {second}"), "Applied")),
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
    assert!(own_comments(&forge)[0].contains("at 39"), "{comments:?}");
    let created = forge
        .contents()
        .writes
        .iter()
        .filter(|(what, _)| what == "created")
        .count();
    assert_eq!(created, 1);
}
