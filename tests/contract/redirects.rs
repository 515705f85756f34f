//! Redirects that would turn a write into a read.

use std::time::Duration;

use hyper::Method;
use tidings_core::{FailureKind, Outcome, Reason};

use crate::service::{Behavior, Reply, Service};
use crate::subject::{Subject, http_types};

const LONG: Duration = Duration::from_secs(60);
const STATUSES: [u16; 3] = [301, 302, 303];

fn to_login(status: u16) -> Behavior {
    let headers = vec![("location", "https://sso.example/login?return=k3y")];
    Behavior::Writes(Reply {
        headers,
        ..Reply::status(status)
    })
}

async fn assert_login_is_not_called(service: &Service, kind: &str) {
    let received = service.take_received();
    let is_write = |method: &Method| !matches!(*method, Method::GET | Method::OPTIONS);
    let writes = received.iter().filter(|request| is_write(&request.method));
    assert_eq!(writes.count(), 1, "{kind}: {received:?}");
    let called = received.iter().any(|request| request.url.contains("sso"));
    assert!(!called, "{kind}: {received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_write_is_rejected_and_the_target_is_not_called() {
    let service = Service::start(Behavior::Healthy).await;
    for row in http_types() {
        let subject = Subject::new(row, &service, LONG);
        for status in STATUSES {
            service.behave(to_login(status));
            let failure = subject.attempt().await.unwrap_err();
            assert_eq!(
                (failure.reason, failure.kind, failure.status),
                (Reason::Rejected, FailureKind::Permanent, Some(status)),
                "{}: {failure:?}",
                row.kind
            );
            for part in ["https://sso.example/login", "acceptRedirects"] {
                assert!(failure.detail.contains(part), "{}: {failure:?}", row.kind);
            }
            assert!(!failure.detail.contains("k3y"), "{}: {failure:?}", row.kind);
            assert_login_is_not_called(&service, row.kind).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_can_accept_redirects_as_the_end_of_a_write() {
    let service = Service::start(Behavior::Healthy).await;
    for row in http_types() {
        let subject = Subject::edited(row, &service, |provider| {
            provider.accept_redirects = true;
        });
        for status in STATUSES {
            service.behave(to_login(status));
            let ended = subject.attempt().await;
            assert_eq!(
                ended.as_ref().map(|ended| (ended.outcome, ended.status)),
                Ok((Outcome::Delivered, Some(status))),
                "{}: {ended:?}",
                row.kind
            );
            assert_login_is_not_called(&service, row.kind).await;
        }
    }
}
