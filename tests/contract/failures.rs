//! Services that don't answer, or not as a service should.

use std::time::Duration;

use futures::future::join_all;
use tidings_core::{FailureKind, Reason};
use tidings_rig::Authority;
use tidings_rules::{SecretValue, Tls};

use crate::service::{Behaviour, Pace, Reply, Service};
use crate::subject::{Subject, http_types};

/// An attempt that is to end by its timeout.
const SHORT: Duration = Duration::from_millis(700);
/// One that is not.
const LONG: Duration = Duration::from_secs(60);

/// Attempts of all types at once.
async fn assert_each_fails(service: &Service, timeout: Duration, reason: Reason) {
    let subjects: Vec<Subject> = http_types()
        .map(|row| Subject::new(row, service, timeout))
        .collect();
    let attempts = join_all(subjects.iter().map(Subject::attempt)).await;
    for (subject, result) in subjects.iter().zip(attempts) {
        let failure = result.unwrap_err();
        assert_eq!(
            (failure.reason, failure.kind),
            (reason, TRANSIENT),
            "{}: {failure:?}",
            subject.row.kind
        );
    }
}

const TRANSIENT: FailureKind = FailureKind::Transient { retry_after: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_answers_is_left_after_the_timeout() {
    assert_each_fails(
        &Service::start(Behaviour::Stall).await,
        SHORT,
        Reason::Timeout,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_too_slowly_is_left_after_the_timeout() {
    assert_each_fails(
        &Service::start(Behaviour::Endless(Pace::Trickle)).await,
        SHORT,
        Reason::Timeout,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_ends_the_attempt_all_the_same() {
    let service = Service::start(Behaviour::Endless(Pace::Flood)).await;
    for row in http_types() {
        // Some take it for success, others for nonsense; none reads on.
        let result = Subject::new(row, &service, LONG).attempt().await;
        assert!(
            result
                .as_ref()
                .err()
                .is_none_or(|failure| failure.reason != Reason::Timeout),
            "{}: {result:?}",
            row.kind
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_not_believed() {
    let service = Service::start(Behaviour::Well).await;
    let authorities = Some(SecretValue::new(Authority::new().pem()));
    for row in http_types() {
        let tls = Tls {
            authorities: authorities.clone(),
            identity: None,
        };
        let failure = Subject::with(row, &service, LONG, tls)
            .attempt()
            .await
            .unwrap_err();
        assert_eq!(
            (failure.reason, failure.kind),
            (Reason::Unreachable, TRANSIENT),
            "{}: {failure:?}",
            row.kind
        );
    }
    assert!(
        service.take_received().is_empty(),
        "nothing is told to a service that is not believed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_text_is_told_as_far_as_it_goes() {
    let body = b"not \xff\xfe text \xf0\x28".to_vec();
    let service = Service::start(Behaviour::Writes(Reply {
        body,
        ..Reply::status(400)
    }))
    .await;
    for row in http_types() {
        let failure = Subject::new(row, &service, LONG)
            .attempt()
            .await
            .unwrap_err();
        assert_eq!(
            (failure.reason, failure.kind),
            (Reason::Rejected, FailureKind::Permanent),
            "{}: {failure:?}",
            row.kind
        );
        assert!(failure.detail.contains("text"), "{}: {failure:?}", row.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_the_proxy_is_tried_again() {
    let mut nobody = Service::start(Behaviour::Well).await;
    nobody.proxy = "http://127.0.0.1:9".into();
    assert_each_fails(&nobody, LONG, Reason::Unreachable).await;
}
