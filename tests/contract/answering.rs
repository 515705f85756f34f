//! What answers mean.

use std::time::Duration;

use futures::future::join_all;
use tidings_core::{FailureKind, Outcome, Reason};

use crate::service::{Behaviour, Reply, Service};
use crate::subject::{Subject, http_types};

/// Longer than any test may take: an attempt that ends by it has failed.
const LONG: Duration = Duration::from_secs(60);

/// What a status of a write means: why it failed, and whether another attempt can help.
type Meaning = Option<(Reason, bool)>;

/// The shared table.
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

/// Where a type differs from the table; the sources are in the types' own files.
const OWN: &[(&str, u16, Meaning)] = &[
    // Pub/Sub's error codes: aborted and cancelled may pass.
    ("googlepubsub", 409, Some((Reason::ServerError, true))),
    ("googlepubsub", 499, Some((Reason::ServerError, true))),
    // OTLP/HTTP: every other status must not be tried again.
    ("otel", 408, Some((Reason::Timeout, false))),
    ("otel", 425, Some((Reason::ServerError, false))),
    ("otel", 500, Some((Reason::ServerError, false))),
    ("otel", 599, Some((Reason::ServerError, false))),
    // Webex: a locked room is free again later.
    ("webex", 423, Some((Reason::ServerError, true))),
];

fn meaning(kind: &str, status: u16, shared: Meaning) -> Meaning {
    let own = OWN
        .iter()
        .find(|(own, number, _)| *own == kind && *number == status);
    own.map_or(shared, |(_, _, meaning)| *meaning)
}

async fn subjects(service: &Service) -> Vec<Subject> {
    http_types()
        .map(|row| Subject::new(row, service, LONG))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_means_the_same_for_every_type_but_where_its_vendor_says_otherwise() {
    let service = Service::start(Behaviour::Well).await;
    let subjects = subjects(&service).await;
    let mut wrong = Vec::new();
    for (status, shared) in TABLE {
        service.behave(Behaviour::Writes(Reply::status(*status)));
        let attempts = join_all(subjects.iter().map(Subject::attempt)).await;
        for (subject, result) in subjects.iter().zip(attempts) {
            let got = result
                .as_ref()
                .err()
                .map(|failure| (failure.reason, failure.kind != FailureKind::Permanent));
            let expected = meaning(subject.row.kind, *status, *shared);
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
async fn every_type_delivers_when_all_is_well() {
    let service = Service::start(Behaviour::Well).await;
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
async fn the_wait_that_a_service_asks_for_is_told() {
    let service = Service::start(Behaviour::Well).await;
    let subjects = subjects(&service).await;
    for status in [429, 503] {
        service.behave(Behaviour::Writes(Reply {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_without_what_is_secret() {
    let service = Service::start(Behaviour::Redirect(307, "/moved")).await;
    for subject in subjects(&service).await {
        let _ = service.take_received();
        let _ = subject.attempt().await;
        let received = service.take_received();
        let moved: Vec<_> = received
            .iter()
            .filter(|request| request.url.contains("/moved"))
            .collect();
        assert!(!moved.is_empty(), "{}: {received:?}", subject.row.kind);
        for request in moved {
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
async fn a_service_that_redirects_for_ever_is_given_up() {
    let reply = Reply {
        headers: vec![("location", "/again")],
        ..Reply::status(307)
    };
    let service = Service::start(Behaviour::All(reply)).await;
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
async fn a_redirect_to_a_metadata_service_is_refused() {
    let reply = Reply {
        headers: vec![("location", "http://169.254.169.254/latest/")],
        ..Reply::status(302)
    };
    let service = Service::start(Behaviour::All(reply)).await;
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
