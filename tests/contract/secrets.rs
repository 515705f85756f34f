//! Secrets appear in no failure, log or stored message.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::{Delivery, Message};
use tidings_workers::attempt::AttemptResult;
use tidings_workers::worker::decide::{Disposition, Processed, decide};

use crate::service::{Behavior, Service};
use crate::subject::{MARK, Subject, delivery, event, filled_example, http_types, resolve_edited};

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
            let framing = ["Host", "Content-Length", "Transfer-Encoding", "Trailer"];
            let of_connection = ["Connection", "Expect", "TE", "Upgrade", "Keep-Alive"];
            let own = row.own_headers.iter().chain(&framing).chain(&of_connection);
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
            let framed = [
                "transfer-encoding",
                "trailer",
                "connection",
                "expect",
                "te",
                "upgrade",
            ];
            for name in framed {
                assert_eq!(header(name), None, "{} {name}", row.kind);
            }
            let length = request.body.len().to_string();
            assert!(
                header("content-length").is_none_or(|sent| sent == length.as_bytes()),
                "{}",
                row.kind
            );
            assert_eq!(
                header("x-scope-orgid"),
                Some(&b"team-a"[..]),
                "{}",
                row.kind
            );
            for name in row.own_headers {
                // The cluster `default` has no header.
                let is_optional = *name == "tidings-cluster";
                assert!(
                    header(name).map_or(is_optional, |value| value != b"1"),
                    "{}",
                    row.kind
                );
            }
        }
    }
}

#[test]
fn a_secret_with_a_header_of_the_connection_is_refused_and_a_framing_header_is_a_warning() {
    for row in http_types().filter(|row| row.sends_headers) {
        let resolve = |header: &str| {
            resolve_edited(&filled_example(row), |keys| {
                keys.insert("headers".into(), format!("{header}: s3cr3t").into());
            })
        };
        for header in ["Connection", "Expect", "TE", "Upgrade"] {
            let error = resolve(header).unwrap_err();
            assert!(error.contains(header), "{}: {error}", row.kind);
            assert!(!error.contains(MARK), "{}: {error}", row.kind);
        }
        for header in ["Host", "Content-Length", "Transfer-Encoding", "Trailer"] {
            let warnings = resolve(header).unwrap().1;
            let named = warnings.iter().any(|warning| warning.contains(header));
            assert!(named, "{}: {warnings:?}", row.kind);
            assert!(!warnings.concat().contains(MARK), "{}", row.kind);
        }
    }
}

#[test]
fn a_credential_that_no_header_can_hold_is_refused_by_its_key() {
    for row in http_types().filter(|row| row.sends_headers) {
        let kind = row.kind;
        let is_sent = |key: &&str| *key != row.raw_key && row.secret_keys().contains(key);
        for key in ["token", "username", "password"]
            .into_iter()
            .filter(is_sent)
        {
            for value in ["s3cr3t\nX-B: c", "s3cr3t\0c"] {
                let resolved = resolve_edited(&filled_example(row), |keys| {
                    keys.insert(key.into(), value.into());
                });
                let error = resolved.unwrap_err();
                let named = error.contains(&format!("the key {key} contains"));
                assert!(named && !error.contains(MARK), "{kind}: {error}");
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
