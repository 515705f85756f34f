//! Checks that events can be published, before a sender finds out.

use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::model::subject;
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;
use crate::wire::Event;

/// The pause after a successful check.
const CHECK_EVERY: Duration = Duration::from_secs(15);
/// The pause after a failed check, which itself takes three seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A stream that does not exist, so that EVENTS stores nothing.
const NO_STREAM: &str = "TIDINGS-CHECK";

impl Bus {
    /// Whether the credentials permit to publish to a subject. Without credentials that say so,
    /// everything is permitted, and the server has the last word.
    pub fn may_publish(&self, subject: &str) -> bool {
        self.access.may_publish(subject)
    }

    /// Whether any message of a stream may be read by its sequence. The worker of a pool may read
    /// its own messages only.
    pub fn may_read(&self, stream: &str) -> bool {
        self.may_publish(&format!("{}.DIRECT.GET.{stream}", self.access.api_prefix()))
    }

    /// Checks again and again whether this client may publish events of a cluster, until `stop`.
    /// Reports each result to `check` and `report`. While there is no connection nothing is
    /// reported, because the connection has a check of its own.
    pub async fn watch_permission(
        &self,
        cluster: &str,
        check: &Check,
        stop: CancellationToken,
        report: impl Fn(Option<String>),
    ) {
        let mut pace = LogPace::default();
        let mut pause = Duration::ZERO;
        let mut failures = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            let result = self.check_permission(cluster).await;
            pause = RETRY_AFTER;
            match result {
                Ok(()) => {
                    (pause, failures) = (CHECK_EVERY, 0);
                    if pace.reset() {
                        tracing::info!(code = codes::PUBLISH_ALLOWED, "events can be published");
                    }
                    check.succeed();
                    report(None);
                }
                Err(_) if !self.is_connected() => {}
                // One late answer, as during the election of a leader, refuses no events.
                Err(_) if failures == 0 => failures = 1,
                Err(problem) => {
                    if pace.is_due(&problem, Instant::now()) {
                        tracing::error!(
                            code = codes::PUBLISH_DENIED,
                            error = problem,
                            "events cannot be published"
                        );
                    }
                    check.fail(problem.clone());
                    report(Some(problem));
                }
            }
        }
    }

    /// Publishes a message that EVENTS refuses, because it names another stream. The refusal proves
    /// that the message arrived and that answers arrive.
    async fn check_permission(&self, cluster: &str) -> Result<(), String> {
        let subject = subject::event(&Event {
            cluster: cluster.to_owned(),
            ..Event::default()
        });
        let message = PublishMessage::build().expected_stream(NO_STREAM);
        let published = async {
            let sent = self.jetstream.send_publish(subject.clone(), message);
            sent.await?.await
        };
        match published.await {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) if error.kind() == PublishErrorKind::TimedOut => Err(format!(
                "the NATS server did not confirm a message to {subject}: check that this user may \
                 publish to events.> and subscribe to _INBOX.>"
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a stream refused the message because it names another one.
fn is_refusal(error: &PublishError) -> bool {
    let cause = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    cause.is_some_and(|cause| cause.error_code() == ErrorCode::STREAM_NOT_MATCH)
}
