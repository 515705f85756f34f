//! The meaning of a service's response.

use std::time::Duration;

use futures::future::join_all;
use tidings_core::{FailureKind, Outcome, Reason};
use tidings_rules::Family;
use tidings_workers::http::confirmation::Confirmation;
use tidings_workers::notifier::contract::ProviderType;

use crate::service::{Behavior, Reply, Service};
use crate::subject::{Subject, http_types};

/// A timeout that no test reaches.
const LONG: Duration = Duration::from_secs(60);

/// The meaning of a write's status: the reason, and whether a retry can help. `None`: accepted.
type Meaning = Option<(Reason, bool)>;

/// The shared table; `workers/src/http/classify.rs` implements it.
const TABLE: &[(u16, Meaning)] = &[
    (200, None),
    (201, None),
    (204, None),
    (400, Some((Reason::Rejected, false))),
    (401, Some((Reason::Unauthorized, true))),
    (402, Some((Reason::Rejected, false))),
    (403, Some((Reason::Unauthorized, true))),
    (404, Some((Reason::NotFound, false))),
    (405, Some((Reason::Rejected, false))),
    (408, Some((Reason::Timeout, true))),
    (409, Some((Reason::Rejected, false))),
    (410, Some((Reason::NotFound, false))),
    (413, Some((Reason::Rejected, false))),
    (422, Some((Reason::Rejected, false))),
    (423, Some((Reason::Rejected, false))),
    (425, Some((Reason::ServerError, true))),
    (429, Some((Reason::RateLimited, true))),
    (499, Some((Reason::Rejected, false))),
    (500, Some((Reason::ServerError, true))),
    (501, Some((Reason::Rejected, false))),
    (502, Some((Reason::ServerError, true))),
    (503, Some((Reason::ServerError, true))),
    (504, Some((Reason::ServerError, true))),
    (505, Some((Reason::Rejected, false))),
    (599, Some((Reason::ServerError, true))),
];

/// The meaning for a type: from its own rules, else from the shared table.
fn meaning(row: &ProviderType, status: u16, shared: Meaning) -> Meaning {
    let rule = row
        .status_rules
        .iter()
        .find(|rule| rule.statuses.contains(&status));
    rule.map_or(shared, |rule| Some((rule.reason, rule.may_retry)))
}

async fn subjects(service: &Service) -> Vec<Subject> {
    http_types()
        .map(|row| Subject::new(row, service, LONG))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_has_the_meaning_of_the_types_own_rules_or_of_the_shared_table() {
    let service = Service::start(Behavior::Healthy).await;
    let subjects = subjects(&service).await;
    let mut wrong = Vec::new();
    for (status, shared) in TABLE {
        service.behave(match shared {
            None => Behavior::Accepts(*status),
            Some(_) => Behavior::Writes(Reply::status(*status)),
        });
        let attempts = join_all(subjects.iter().map(Subject::attempt)).await;
        for (subject, result) in subjects.iter().zip(attempts) {
            let got = result
                .as_ref()
                .err()
                .map(|failure| (failure.reason, failure.kind != FailureKind::Permanent));
            let expected = meaning(subject.row, *status, *shared);
            if got != expected {
                wrong.push(format!(
                    "{} {status}: expected {expected:?}, got {result:?}",
                    subject.row.kind
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_delivers_to_a_healthy_service() {
    let service = Service::start(Behavior::Healthy).await;
    for subject in subjects(&service).await {
        let ended = subject.attempt().await;
        assert_eq!(
            ended.as_ref().map(|ended| ended.outcome),
            Ok(Outcome::Delivered),
            "{}: {ended:?}",
            subject.row.kind
        );
        assert!(!service.take_received().is_empty(), "{}", subject.row.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_reported() {
    let service = Service::start(Behavior::Healthy).await;
    let subjects = subjects(&service).await;
    for status in [429, 503] {
        service.behave(Behavior::Writes(Reply {
            headers: vec![("retry-after", "1234")],
            ..Reply::status(status)
        }));
        for subject in &subjects {
            let failure = subject.attempt().await.unwrap_err();
            let expected = FailureKind::Transient {
                retry_after: Some(Duration::from_secs(1234)),
            };
            assert_eq!(
                failure.kind, expected,
                "{} {status}: {failure:?}",
                subject.row.kind
            );
        }
    }
}

/// A page that a proxy shows in place of the service, with the headers and status of a success.
fn page() -> Reply {
    Reply {
        headers: vec![("content-type", "text/html; charset=utf-8")],
        body: b"<!DOCTYPE html><title>Sign in</title>".to_vec(),
        ..Reply::status(200)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_accepted_only_where_the_status_alone_decides() {
    let service = Service::start(Behavior::Healthy).await;
    let subjects = subjects(&service).await;
    for behavior in [Behavior::Writes(page()), Behavior::All(page())] {
        service.behave(behavior);
        assert_rejected_unless(&subjects, Confirmation::Status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_of_another_form_is_rejected() {
    let service = Service::start(Behavior::Healthy).await;
    let subjects: Vec<Subject> = subjects(&service).await;
    let checks_json = |subject: &Subject| {
        matches!(
            subject.row.confirmation,
            Confirmation::Json(_) | Confirmation::JsonOrOk(_)
        )
    };
    let subjects: Vec<Subject> = subjects.into_iter().filter(checks_json).collect();
    assert!(subjects.len() > 15, "the types whose services answer JSON");
    let expired = r#"{"error":"session expired","message":"please log in"}"#;
    for body in ["", "accepted", "[]", "7", "null", "{}", expired] {
        service.behave(Behavior::Writes(Reply {
            body: body.into(),
            ..Reply::status(200)
        }));
        assert_rejected_unless(&subjects, Confirmation::Status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_another_form_is_rejected() {
    let service = Service::start(Behavior::Healthy).await;
    let mut subjects: Vec<Subject> = subjects(&service).await;
    subjects.retain(|subject| subject.row.family == Family::CommitStatus);
    assert_eq!(subjects.len(), 6);
    let expired = r#"{"error":"session expired","message":"please log in"}"#;
    for body in ["{}", expired, r#"[{"foo":1}]"#, r#"{"value":[{"foo":1}]}"#] {
        service.behave(Behavior::All(Reply {
            body: body.into(),
            ..Reply::status(200)
        }));
        for subject in &subjects {
            let result = subject.attempt().await;
            let kind = result.as_ref().map_err(|failure| failure.kind).err();
            let row = subject.row.kind;
            assert_eq!(
                kind,
                Some(FailureKind::Permanent),
                "{row} {body}: {result:?}"
            );
        }
    }
}

/// Asserts that one attempt of each type is rejected, or delivered if its service confirms so.
async fn assert_rejected_unless(subjects: &[Subject], confirmation: Confirmation) {
    let attempts = join_all(subjects.iter().map(Subject::attempt)).await;
    for (subject, result) in subjects.iter().zip(attempts) {
        let got = result.as_ref().map(|ended| ended.outcome);
        let got = got.map_err(|failure| (failure.reason, failure.kind));
        let expected = match subject.row.confirmation == confirmation {
            true => Ok(Outcome::Delivered),
            false => Err((Reason::Rejected, FailureKind::Permanent)),
        };
        assert_eq!(got, expected, "{}: {result:?}", subject.row.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_without_secrets() {
    let service = Service::start(Behavior::Redirect(307, "/target")).await;
    for subject in subjects(&service).await {
        let _ = service.take_received();
        let _ = subject.attempt().await;
        let received = service.take_received();
        let redirected: Vec<_> = received
            .iter()
            .filter(|request| request.url.contains("/target"))
            .collect();
        assert!(!redirected.is_empty(), "{}: {received:?}", subject.row.kind);
        for request in redirected {
            let shown = format!("{:?}", request.headers);
            assert!(
                !request.headers.contains_key("authorization"),
                "{}: {shown}",
                subject.row.kind
            );
            assert!(
                !shown.contains(crate::subject::MARK),
                "{}: {shown}",
                subject.row.kind
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_redirect_is_rejected() {
    let reply = Reply {
        headers: vec![("location", "/again")],
        ..Reply::status(307)
    };
    let service = Service::start(Behavior::All(reply)).await;
    for subject in subjects(&service).await {
        let failure = subject.attempt().await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.kind),
            (Reason::Rejected, FailureKind::Permanent),
            "{}",
            subject.row.kind
        );
        assert_eq!(service.take_received().len(), 6, "{}", subject.row.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_metadata_service_is_not_followed() {
    let reply = Reply {
        headers: vec![("location", "http://169.254.169.254/latest/")],
        ..Reply::status(307)
    };
    let service = Service::start(Behavior::All(reply)).await;
    for subject in subjects(&service).await {
        let failure = subject.attempt().await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.kind),
            (Reason::Misconfigured, FailureKind::Permanent),
            "{}",
            subject.row.kind
        );
    }
}
