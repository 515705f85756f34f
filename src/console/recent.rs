//! What the last outcomes say of each Alert and Provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::{between, from_proto};
use tidings_core::runtime::codes::log as codes;
use tidings_core::wire::Outcome;
use tidings_core::{Message as _, Outcome as Label};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::command::tool::time;

/// How many outcomes of the past are read at the start.
const PAST: u64 = 5000;
/// The most Alerts, and the most Providers, that are remembered.
const MOST_NAMES: usize = 10_000;
/// The most outcomes that a live stream may lag behind.
const MOST_LAGGING: usize = 1024;
/// The longest detail of an attempt that is shown in lists.
const MAX_DETAIL_BYTES: usize = 500;
/// The pause before a lost stream is read again.
const PAUSE: Duration = Duration::from_secs(5);

/// The last outcomes. Clones share their state.
#[derive(Clone)]
pub struct Recent {
    state: Arc<Mutex<State>>,
    live: broadcast::Sender<Arc<Value>>,
}

#[derive(Default)]
struct State {
    alerts: HashMap<Name, Seen>,
    providers: HashMap<Name, Seen>,
    counts: Counts,
}

type Name = (String, String);

/// What was seen of an Alert or a Provider since the console started, and a little before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// When an event last matched; of Alerts only.
    pub last_match_at: Option<String>,
    pub last_delivery_at: Option<String>,
    pub last_error: Option<LastError>,
}

/// The last attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    pub at: String,
    pub reason: String,
    pub detail: String,
}

/// The outcomes since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub delivered: u64,
    pub retrying: u64,
    pub dead: u64,
    pub other: u64,
    /// From the plan of each delivery to its success, in milliseconds.
    pub latencies: Vec<u64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            live: broadcast::channel(MOST_LAGGING).0,
        }
    }
}

impl Recent {
    /// Follows OUTCOMES until `stop`.
    pub async fn follow(self, bus: Bus, stop: CancellationToken) {
        let mut next = None;
        while !stop.is_cancelled() {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow_until_error(&bus, &mut next) => followed,
            };
            if let Err(error) = followed {
                tracing::debug!(
                    code = codes::CONSOLE_READ_FAILED,
                    error = format!("{error:#}"),
                    "console cannot follow outcomes"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn follow_until_error(&self, bus: &Bus, next: &mut Option<u64>) -> anyhow::Result<()> {
        const UNREADABLE: &str = "cannot read the stream OUTCOMES";
        let stream = bus.jetstream().get_stream(streams::OUTCOMES).await;
        let stream = stream.context(UNREADABLE)?;
        let last = stream.cached_info().state.last_sequence;
        // A recreated stream begins again below what was read.
        let resumed = next.filter(|next| *next <= last);
        let start = resumed.unwrap_or_else(|| last.saturating_sub(PAST)) + 1;
        let consumer = stream.create_consumer(OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: start,
            },
            ..OrderedConfig::default()
        });
        let mut messages = consumer
            .await
            .context(UNREADABLE)?
            .messages()
            .await
            .context(UNREADABLE)?;
        while let Some(message) = messages.next().await {
            let message = message.context(UNREADABLE)?;
            let info = message.info().map_err(anyhow::Error::msg)?;
            let published = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos())?;
            let sequence = info.stream_sequence;
            let is_new = resumed.is_some() || sequence > last;
            *next = Some(sequence);
            let Ok(outcome) = Outcome::decode(message.payload.clone()) else {
                continue;
            };
            self.state.lock().add(&outcome, published, is_new);
            if is_new && self.live.receiver_count() > 0 {
                // Fails only without receivers.
                let _ = self.live.send(Arc::new(row(&outcome, published)));
            }
        }
        Ok(())
    }

    /// Outcomes from now on, as JSON.
    pub fn live(&self) -> broadcast::Receiver<Arc<Value>> {
        self.live.subscribe()
    }

    /// What was seen of an Alert.
    pub fn alert(&self, namespace: &str, name: &str) -> Option<Seen> {
        let state = self.state.lock();
        state.alerts.get(&(namespace.into(), name.into())).cloned()
    }

    /// What was seen of a Provider.
    pub fn provider(&self, namespace: &str, name: &str) -> Option<Seen> {
        let state = self.state.lock();
        let key = (namespace.into(), name.into());
        state.providers.get(&key).cloned()
    }

    /// The counts since the last call.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.state.lock().counts)
    }
}

impl State {
    fn add(&mut self, outcome: &Outcome, published: Timestamp, is_new: bool) {
        let alert = outcome.alert.clone().unwrap_or_default();
        let provider = outcome.provider.clone().unwrap_or_default();
        let attempt = outcome.attempt.clone().unwrap_or_default();
        let is = |label: Label| attempt.outcome == label.as_str();
        let (delivered, failed) = (is(Label::Delivered), is(Label::Retrying) || is(Label::Dead));
        let at = format!("{published:.3}");
        let note = |seen: &mut Seen, matched: Option<String>| {
            seen.last_match_at = matched.max(seen.last_match_at.take());
            if delivered {
                seen.last_delivery_at = Some(at.clone());
            }
            if failed {
                seen.last_error = Some(LastError {
                    at: at.clone(),
                    reason: attempt.reason.clone(),
                    detail: cut_bytes(&attempt.detail, MAX_DETAIL_BYTES),
                });
            }
        };
        let planned = outcome.planned_at;
        if let Some(seen) = entry(&mut self.alerts, (alert.namespace, alert.name)) {
            note(seen, planned.map(|at| time(Some(at))));
        }
        if let Some(seen) = entry(&mut self.providers, (provider.namespace, provider.name)) {
            note(seen, None);
        }
        if !is_new {
            return;
        }
        let counts = &mut self.counts;
        match () {
            () if delivered => counts.delivered += 1,
            () if is(Label::Retrying) => counts.retrying += 1,
            () if failed => counts.dead += 1,
            () => counts.other += 1,
        }
        if let Some(planned) = from_proto(planned).filter(|_| delivered)
            && counts.latencies.len() < MOST_NAMES
        {
            let took = between(planned, published).as_millis();
            counts
                .latencies
                .push(u64::try_from(took).unwrap_or(u64::MAX));
        }
    }
}

/// The entry of a name. `None` if there are too many others.
fn entry(seen: &mut HashMap<Name, Seen>, name: Name) -> Option<&mut Seen> {
    if seen.len() >= MOST_NAMES && !seen.contains_key(&name) {
        return None;
    }
    Some(seen.entry(name).or_default())
}

fn row(outcome: &Outcome, published: Timestamp) -> Value {
    let alert = outcome.alert.clone().unwrap_or_default();
    let provider = outcome.provider.clone().unwrap_or_default();
    let attempt = outcome.attempt.clone().unwrap_or_default();
    json!({
        "at": format!("{published:.3}"),
        "deliveryId": outcome.delivery_id,
        "eventId": outcome.event_id,
        "cluster": outcome.cluster,
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "attempt": attempt.number,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "status": Some(attempt.status).filter(|status| *status > 0),
        "durationMs": attempt.duration_ms,
        "detail": cut_bytes(&attempt.detail, MAX_DETAIL_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use tidings_core::model::time::to_proto;
    use tidings_core::{AlertReference, Attempt, ProviderReference};

    use super::*;

    fn outcome(label: &str, planned: Option<i64>) -> Outcome {
        let of_second = |second| Timestamp::from_second(second).unwrap();
        Outcome {
            alert: Some(AlertReference {
                namespace: "apps".into(),
                name: "all".into(),
                ..AlertReference::default()
            }),
            provider: Some(ProviderReference {
                namespace: "apps".into(),
                name: "hook".into(),
                ..ProviderReference::default()
            }),
            attempt: Some(Attempt {
                outcome: label.into(),
                reason: "rejected".into(),
                ..Attempt::default()
            }),
            planned_at: planned.map(|second| to_proto(of_second(second))),
            ..Outcome::default()
        }
    }

    #[test]
    fn the_last_match_delivery_and_error_are_kept() {
        let recent = Recent::default();
        let add = |label: &str, planned, second, is_new| {
            let published = Timestamp::from_second(second).unwrap();
            let outcome = outcome(label, planned);
            recent.state.lock().add(&outcome, published, is_new);
        };
        add("dead", Some(5), 6, false);
        add("delivered", Some(10), 12, true);
        add("retrying", None, 13, true);
        let alert = recent.alert("apps", "all").unwrap();
        assert_eq!(
            alert.last_match_at.as_deref(),
            Some("1970-01-01T00:00:10.000Z")
        );
        let provider = recent.provider("apps", "hook").unwrap();
        assert_eq!(provider.last_match_at, None);
        assert_eq!(
            provider.last_delivery_at.as_deref(),
            Some("1970-01-01T00:00:12.000Z")
        );
        let error = provider.last_error.unwrap();
        assert_eq!(
            (error.at.as_str(), error.reason.as_str()),
            ("1970-01-01T00:00:13.000Z", "rejected")
        );
        let counts = recent.take_counts();
        assert_eq!((counts.delivered, counts.retrying, counts.dead), (1, 1, 0));
        assert_eq!(counts.latencies, [2000]);
        assert_eq!(recent.take_counts(), Counts::default());
        assert_eq!(recent.alert("apps", "other"), None);
    }
}
