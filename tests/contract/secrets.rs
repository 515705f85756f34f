//! Secrets appear in no failure, log or stored message.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::{Delivery, Message};
use tidings_workers::attempt::AttemptResult;
use tidings_workers::worker::decide::{Disposition, Processed, decide};

use crate::service::{Behavior, Service};
use crate::subject::{MARK, Subject, delivery, event, http_types};

/// The credentials in the requests that the service received.
fn received_credentials(service: &Service) -> Vec<String> {
    let received = service.take_received();
    let values = received
        .iter()
        .flat_map(|request| request.headers.get_all("authorization"));
    let text = values
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned);
    text.filter_map(|value| value.rsplit(' ').next().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_sends_the_headers_of_its_secret_and_keeps_its_own() {
    let service = Service::start(Behavior::Healthy).await;
    for row in http_types().filter(|row| row.sends_headers) {
        let subject = Subject::edited(row, &service, |provider| {
            let own = row.own_headers.iter().chain(&["Host", "Content-Length"]);
            let headers = own.map(|name| ((*name).to_owned(), "1".to_owned()));
            provider.headers = headers.collect();
            provider
                .headers
                .insert("X-Scope-OrgID".into(), "team-a".into());
        });
        let result = subject.attempt().await;
        assert!(result.is_ok(), "{}: {result:?}", row.kind);
        let received = service.take_received();
        assert!(!received.is_empty(), "{} makes no call", row.kind);
        for request in received {
            let header = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
            assert_eq!(
                header("x-scope-orgid"),
                Some(&b"team-a"[..]),
                "{}",
                row.kind
            );
            for name in row.own_headers {
                assert!(
                    header(name).is_some_and(|value| value != b"1"),
                    "{}",
                    row.kind
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_service_repeats_are_redacted() {
    for status in [400, 401, 500] {
        let service = Service::start(Behavior::Echo(status)).await;
        for row in http_types() {
            let subject = Subject::new(row, &service, Duration::from_secs(60));
            let failure = subject.attempt().await.unwrap_err();
            let planned: Delivery = delivery(&event("Health check failed"));
            let processed = Processed::new(&planned, AttemptResult::failed(failure.clone()));
            let decision = decide(&planned, &processed, Timestamp::UNIX_EPOCH, 0.5);
            let stored = match decision.disposition {
                Disposition::StoreDeadLetter(dead_letter) => dead_letter.encode_to_vec(),
                Disposition::Retry(delivery, _) => delivery.encode_to_vec(),
                other => unreachable!("the attempt failed: {other:?}"),
            };
            let report = decision.report;
            let mut secrets = received_credentials(&service);
            secrets.push(MARK.to_owned());
            let provider = &subject.prepared.provider;
            let shown = [
                format!("{failure:?} {failure} {report:?}"),
                format!("{provider:?} {:?}", subject.prepared.redactor),
                String::from_utf8_lossy(&stored).into_owned(),
            ];
            for (secret, shown) in secrets
                .iter()
                .flat_map(|secret| shown.iter().map(move |shown| (secret, shown)))
            {
                assert!(
                    !shown.contains(secret.as_str()),
                    "{} shows {secret}: {shown}",
                    row.kind
                );
            }
        }
    }
}
