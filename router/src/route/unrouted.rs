//! Events that are not routed, or not completely: each for a counted reason.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use tidings_core::Event;
use tidings_core::bus::publish::until_stored;
use tidings_core::bus::pull::Pulled;
use tidings_core::model::stored_event::RefusedEvent;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::RoutingOutcome;
use tidings_core::wire::PostponedEvent;

use super::Router;

impl Router {
    /// Acknowledges a message that is not an event of its subject's cluster.
    pub(super) async fn refuse(&self, pulled: &Pulled, refused: &RefusedEvent) {
        let sequence = pulled.sequence;
        let outcome = match refused {
            RefusedEvent::Undecodable { subject } => {
                tracing::error!(
                    code = codes::EVENT_UNDECODABLE,
                    subject,
                    sequence,
                    "event cannot be decoded and is dropped"
                );
                RoutingOutcome::Undecodable
            }
            RefusedEvent::OtherCluster {
                subject,
                token,
                claimed,
            } => {
                tracing::error!(
                    code = codes::EVENT_OF_OTHER_CLUSTER,
                    subject,
                    token,
                    claimed,
                    sequence,
                    "event names another cluster than its subject and is refused"
                );
                RoutingOutcome::OtherCluster
            }
        };
        self.finish(pulled, outcome).await;
    }

    /// Returns an event to the server, which delivers it again after a while.
    pub(super) async fn return_later(&self, pulled: &Pulled) {
        let times = u32::try_from(pulled.delivered.clamp(1, 5)).unwrap_or(1);
        let pause = Duration::from_secs(1 << (times - 1));
        tracing::debug!(
            code = codes::EVENT_RETURNED,
            sequence = pulled.sequence,
            "event returned to the server, too many costly events of its namespace wait"
        );
        self.metrics.router_events_returned_total.inc();
        let kind = AckKind::Nak(Some(pause));
        self.bus.send_ack(pulled.message.reply.as_ref(), kind).await;
    }

    /// Notes that an event must be matched again with the rules of `source`, retrying until it
    /// succeeds.
    pub(super) async fn postpone(&self, source: &str, event: &Event, sequence: u64) {
        let noted = PostponedEvent {
            cluster: source.to_owned(),
            sequence,
            event_id: event.id.clone(),
        };
        until_stored(
            || self.postponed.add(&noted),
            |error| {
                tracing::warn!(
                    code = codes::EVENT_NOT_POSTPONED,
                    event.id,
                    %error,
                    "event not noted for the rules of its member, retrying"
                )
            },
        )
        .await;
        self.metrics.router_events_postponed_total.inc();
    }

    /// Detects that EVENTS evicted unread events, which the server does not report: stream
    /// sequences then grow faster than consumer sequences.
    pub(super) fn detect_eviction(&self, pulled: &Pulled) {
        if pulled.delivered > 1 {
            return;
        }
        let position = pulled.consumer_sequence;
        let gap = pulled.sequence.saturating_sub(position);
        let before = {
            let mut last = self.gap.lock();
            // Messages are handled at the same time, so a later one may have been here first.
            if last.is_some_and(|(later, _)| later > position) {
                return;
            }
            last.replace((position, gap))
        };
        if let Some((_, before)) = before
            && gap > before
        {
            let lost = gap - before;
            self.metrics.router_lost_to_retention_total.inc_by(lost);
            tracing::error!(
                code = codes::EVENTS_LOST,
                lost,
                sequence = pulled.sequence,
                "stream EVENTS evicted events before a router read them"
            );
        }
    }
}
