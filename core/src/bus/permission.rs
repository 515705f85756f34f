//! Checks that events can be published, before a sender finds out.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// How often the server refused what this client sent, as it said. Without that, a message that is
/// not confirmed says nothing about permissions: the link may be silent.
#[derive(Debug, Default)]
pub(super) struct Violations {
    publish: AtomicU64,
    subscribe: AtomicU64,
}

/// Why events cannot be published.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// The server refused a message, or the subscription for its confirmation.
    Denied(String),
    /// There is no answer, or no stream.
    Failed(String),
}

impl Violations {
    /// Forgets what was refused on the former connection: its user may have other permissions now.
    pub(super) fn reset(&self) {
        self.subscribe.store(0, Ordering::Relaxed);
    }

    /// Notes an error that the server sent.
    pub(super) fn note(&self, error: &str) {
        let error = error.to_lowercase();
        if error.contains("permissions violation for publish to \"events.") {
            self.publish.fetch_add(1, Ordering::Relaxed);
        } else if error.contains("permissions violation for subscription to \"_inbox") {
            self.subscribe.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn published(&self) -> u64 {
        self.publish.load(Ordering::Relaxed)
    }

    /// The client subscribes to its inbox once, with the first request.
    fn has_refused_a_subscription(&self) -> bool {
        self.subscribe.load(Ordering::Relaxed) > 0
    }
}

impl Problem {
    fn text(&self) -> &str {
        let (Self::Denied(text) | Self::Failed(text)) = self;
        text
    }

    fn log(&self) {
        const MESSAGE: &str = "events cannot be published";
        match self {
            Self::Denied(error) => {
                tracing::error!(code = codes::PUBLISH_DENIED, error, "{MESSAGE}");
            }
            Self::Failed(error) => {
                tracing::error!(code = codes::PUBLISH_FAILED, error, "{MESSAGE}");
            }
        }
    }
}

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
                    if pace.is_due(problem.text(), Instant::now()) {
                        problem.log();
                    }
                    check.fail(problem.text().to_owned());
                    report(Some(problem.text().to_owned()));
                }
            }
        }
    }

    /// Publishes a message that EVENTS refuses, because it names another stream. The refusal proves
    /// that the message arrived and that answers arrive.
    async fn check_permission(&self, cluster: &str) -> Result<(), Problem> {
        let refused_before = self.violations.published();
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
            Err(error) if error.kind() != PublishErrorKind::TimedOut => {
                Err(Problem::Failed(error.to_string()))
            }
            Err(_) if self.violations.published() > refused_before => {
                Err(Problem::Denied(format!(
                    "the NATS server refuses a message to {subject}: use the credentials of this \
                     role, or permit this user to publish to events.>"
                )))
            }
            Err(_) if self.violations.has_refused_a_subscription() => {
                Err(Problem::Denied(format!(
                    "the NATS server did not confirm a message to {subject}, and refused a \
                     subscription: permit this user to subscribe to _INBOX.>"
                )))
            }
            Err(_) => Err(Problem::Failed(format!(
                "the NATS server does not answer: a message to {subject} was neither confirmed nor \
                 refused; check the network and the server"
            ))),
        }
    }
}

/// Whether a stream refused the message because it names another one.
fn is_refusal(error: &PublishError) -> bool {
    let cause = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    cause.is_some_and(|cause| cause.error_code() == ErrorCode::STREAM_NOT_MATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_says_counts_as_refused() {
        let violations = Violations::default();
        for (error, published, subscribed) in [
            ("nats: maximum connections exceeded", 0, false),
            (
                "nats: permissions violation for publish to \"events.a\"",
                1,
                false,
            ),
            (
                "nats: permissions violation for publish to \"$KV.heartbeats.a\"",
                1,
                false,
            ),
            (
                "nats: Permissions Violation for Subscription to \"_INBOX.a.*\"",
                1,
                true,
            ),
        ] {
            violations.note(error);
            let found = (
                violations.published(),
                violations.has_refused_a_subscription(),
            );
            assert_eq!(found, (published, subscribed), "{error}");
        }
    }
}
