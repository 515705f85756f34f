//! Tests of the check as a whole, with a scripted reviewer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use tidings_core::runtime::health::Health;

use super::*;

/// Knows `user-…` as tokens of users, answers late about `slow-…`, and never about `hang`.
#[derive(Clone, Default)]
struct Scripted {
    asked: Arc<AtomicUsize>,
}

impl Reviewer for Scripted {
    fn can_know(&self, token: &str) -> bool {
        token != "no-token-of-a-cluster"
    }

    async fn review(&self, token: &str) -> Result<Review, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Lets other requests run, as a real call does.
        tokio::time::sleep(Duration::from_millis(10)).await;
        match token {
            "down" => Err("down".to_owned()),
            "hang" => std::future::pending().await,
            token if token.starts_with("slow-") => {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                Ok(Review::Invalid)
            }
            token if token.starts_with("user-") => Ok(Review::Valid(User {
                name: token.to_owned(),
                groups: vec!["all".to_owned()],
                ..User::default()
            })),
            _ => Ok(Review::Invalid),
        }
    }
}

fn reviewing(reviewer: Scripted) -> Authentication<Scripted> {
    reviewing_with(&Health::default(), reviewer)
}

fn reviewing_with(health: &Health, reviewer: Scripted) -> Authentication<Scripted> {
    let check = health.optional_check("token-review");
    let users = Users::new(&["user-a*".to_owned()]);
    let reviews = Arc::new(Reviews::new(reviewer, users, check));
    Authentication::new(None, Some(reviews), Family::default())
}

fn with_token(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    headers.insert(AUTHORIZATION, value);
    headers
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_about_once_in_short_time() {
    let reviewer = Scripted::default();
    let authentication = reviewing(reviewer.clone());
    let not_allowed = Err(Refusal::NotAllowed(Arc::from("user-b")));
    for (token, expected) in [
        ("user-a", Ok(())),
        ("user-b", not_allowed),
        ("garbage", Err(Refusal::Unknown)),
    ] {
        for _ in 0..3 {
            let checked = authentication.check(&with_token(token), None).await;
            assert_eq!(checked, expected, "{token}");
        }
    }
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 3);
    let outcomes = &authentication.outcomes;
    for outcome in [Outcome::Reviewed, Outcome::NotAllowed, Outcome::Unknown] {
        assert_eq!(outcomes.get_or_create(&outcome).get(), 3, "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reviewer_without_an_answer_is_no_reason_to_call_a_token_invalid() {
    let reviewer = Scripted::default();
    let authentication = reviewing(reviewer.clone());
    for token in ["down", "hang", "down"] {
        let checked = authentication.check(&with_token(token), None).await;
        assert_eq!(checked, Err(Refusal::Unavailable), "{token}");
    }
    assert_eq!(
        reviewer.asked.load(Ordering::Relaxed),
        3,
        "it is asked again"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_token_is_refused_without_asking() {
    let reviewer = Scripted::default();
    let authentication = reviewing(reviewer.clone());
    let garbage = with_token("no-token-of-a-cluster");
    let checked = authentication.check(&garbage, None).await;
    assert_eq!(checked, Err(Refusal::Unknown));
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 0);
}

/// As a flood of invalid tokens that are slow to review.
#[tokio::test(start_paused = true)]
async fn too_many_reviews_are_no_failure_of_the_reviewer() {
    let health = Health::default();
    let authentication = Arc::new(reviewing_with(&health, Scripted::default()));
    let first = authentication.check(&with_token("user-a"), None).await;
    assert_eq!(first, Ok(()));
    let slow: Vec<_> = (0..17)
        .map(|number| {
            let authentication = authentication.clone();
            let token = with_token(&format!("slow-{number}"));
            tokio::spawn(async move { authentication.check(&token, None).await })
        })
        .collect();
    let mut refusals = Vec::new();
    for waiting in slow {
        refusals.push(waiting.await.unwrap());
    }
    let count = |refusal: Refusal| {
        let refused = Err(refusal);
        refusals.iter().filter(|found| **found == refused).count()
    };
    assert_eq!(count(Refusal::Unknown), 16);
    assert_eq!(count(Refusal::Busy), 1);
    assert_eq!((health.failures().len(), health.warnings().len()), (0, 0));
    assert_eq!(
        authentication.outcomes.get_or_create(&Outcome::Busy).get(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn reviews_without_an_answer_end_and_leave_turns_for_others() {
    let authentication = Arc::new(reviewing(Scripted::default()));
    let hanging: Vec<_> = (0..100)
        .map(|_| {
            let authentication = authentication.clone();
            tokio::spawn(async move { authentication.check(&with_token("hang"), None).await })
        })
        .collect();
    for waiting in hanging {
        let refusal = waiting.await.unwrap().unwrap_err();
        assert!(
            matches!(refusal, Refusal::Unavailable | Refusal::Busy),
            "{refusal}"
        );
    }
    let checked = authentication.check(&with_token("user-a"), None).await;
    assert_eq!(checked, Ok(()));
}

#[tokio::test]
async fn a_token_of_the_file_needs_no_review() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, "ci user-a-0123456789abcdef\n").unwrap();
    let tokens = Tokens::from_path("ingest.auth.tokens", path)
        .unwrap()
        .current();
    let reviewer = Scripted::default();
    let mut authentication = reviewing(reviewer.clone());
    authentication.tokens = Some(tokens);
    let known = with_token("user-a-0123456789abcdef");
    assert_eq!(authentication.check(&known, None).await, Ok(()));
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 0);
    let reviewed = with_token("user-a-of-the-cluster");
    assert_eq!(authentication.check(&reviewed, None).await, Ok(()));
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 1);
    let missing = authentication.check(&HeaderMap::new(), None).await;
    assert_eq!(missing, Err(Refusal::Missing));
}
