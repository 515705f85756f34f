//! Services that do not respond, or respond incorrectly.

use std::time::Duration;

use futures::future::join_all;
use tidings_core::{FailureKind, Reason};
use tidings_rig::Authority;
use tidings_rules::{SecretValue, Tls};

use crate::service::{Behavior, Pace, Reply, Service};
use crate::subject::{Subject, http_types};

/// The timeout of an attempt that must time out.
const SHORT: Duration = Duration::from_millis(700);
/// A timeout that no test reaches.
const LONG: Duration = Duration::from_secs(60);

/// Asserts that one attempt of each type fails with the reason and can be retried.
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
async fn a_service_that_never_responds_times_out() {
    assert_each_fails(
        &Service::start(Behavior::Stall).await,
        SHORT,
        Reason::Timeout,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_response_ends_the_attempt_before_the_timeout() {
    let service = Service::start(Behavior::Endless(Pace::Flood)).await;
    for row in http_types() {
        // Some types accept it and others fail. None reads until the timeout.
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
async fn a_certificate_of_another_authority_is_rejected() {
    let service = Service::start(Behavior::Healthy).await;
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
            (Reason::UntrustedCertificate, TRANSIENT),
            "{}: {failure:?}",
            row.kind
        );
    }
    assert!(
        service.take_received().is_empty(),
        "no request is sent to a service with a wrong certificate"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_valid_text_is_reported_in_part() {
    let body = b"not \xff\xfe text \xf0\x28".to_vec();
    let service = Service::start(Behavior::Writes(Reply {
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
async fn an_unreachable_proxy_is_retried() {
    let mut service = Service::start(Behavior::Healthy).await;
    service.proxy = "http://127.0.0.1:9".into();
    assert_each_fails(&service, LONG, Reason::Unreachable).await;
}
