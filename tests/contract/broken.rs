//! Bodies that break after the head of a response.

use std::time::Duration;

use futures::future::join_all;
use tidings_core::{FailureKind, Outcome, Reason};
use tidings_rules::Family;
use tidings_workers::http::confirmation::Confirmation;

use crate::service::{Behavior, Break, Pace, Service};
use crate::subject::{Subject, http_types};

/// A timeout that ends a body that hangs. The head arrives within it.
const TIMEOUT: Duration = Duration::from_secs(5);
const BREAKS: [Break; 4] = [Break::CutOff, Break::Hangs, Break::NoGzip, Break::CutChunks];

type Meaning = Result<Outcome, (Reason, FailureKind)>;

const TRANSIENT: FailureKind = FailureKind::Transient { retry_after: None };

/// Asserts the meaning of one attempt for types that judge the status, for types whose first
/// request is a read, and for all others.
async fn assert_each(service: &Service, by_status: Meaning, by_read: Meaning, by_body: Meaning) {
    let subjects: Vec<Subject> = http_types()
        .map(|row| Subject::new(row, service, TIMEOUT))
        .collect();
    let attempts = join_all(subjects.iter().map(Subject::attempt)).await;
    for (subject, result) in subjects.iter().zip(attempts) {
        let expected = match (subject.row.confirmation, subject.row.family) {
            (_, Family::CommitStatus | Family::ChangeRequest) => by_read,
            (Confirmation::Status, _) => by_status,
            _ => by_body,
        };
        let got = result.as_ref().map(|ended| ended.outcome);
        let got = got.map_err(|failure| (failure.reason, failure.kind));
        assert_eq!(got, expected, "{}: {result:?}", subject.row.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_unknown_only_to_types_that_need_the_body() {
    let service = Service::start(Behavior::Healthy).await;
    let unknown = Err((Reason::AnswerUnknown, TRANSIENT));
    // Nothing was written, so the attempt is simply repeated.
    let unread = Err((Reason::Unreachable, TRANSIENT));
    for how in BREAKS {
        service.behave(Behavior::Broken(200, how));
        assert_each(&service, Ok(Outcome::Delivered), unread, unknown).await;
    }
    service.behave(Behavior::Endless(Pace::Trickle));
    assert_each(&service, Ok(Outcome::Delivered), unread, unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_failure_decides_even_if_its_body_breaks() {
    let service = Service::start(Behavior::Healthy).await;
    for how in BREAKS {
        service.behave(Behavior::Broken(400, how));
        let rejected = Err((Reason::Rejected, FailureKind::Permanent));
        assert_each(&service, rejected, rejected, rejected).await;
    }
    service.behave(Behavior::Broken(502, Break::CutOff));
    let failed = Err((Reason::ServerError, TRANSIENT));
    assert_each(&service, failed, failed, failed).await;
}
