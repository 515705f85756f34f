//! What the last outcomes say of each Alert and Provider.

use std::collections::{HashMap, VecDeque};
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

use super::visible::namespaces_of_outcome;
use crate::command::tool::time;

/// How many outcomes of the past are read at the start.
const PAST: u64 = 5000;
/// The most Alerts, and the most Providers, that are remembered.
const MOST_NAMES: usize = 10_000;
/// The most outcomes that a live stream may lag behind, or miss while it is opened again.
const MOST_LAGGING: usize = 1024;
/// The longest detail of an attempt that is shown in lists.
const MAX_DETAIL_BYTES: usize = 500;
/// The pause before a lost stream is read again.
const PAUSE: Duration = Duration::from_secs(5);

/// The last outcomes. Clones share their state.
#[derive(Clone)]
pub struct Recent {
    state: Arc<Mutex<State>>,
    live: broadcast::Sender<Arc<LiveOutcome>>,
}

/// An outcome for live streams.
pub struct LiveOutcome {
    /// Its sequence in OUTCOMES.
    pub sequence: u64,
    /// The outcome as JSON.
    pub row: Value,
    /// The namespaces of its Alert and its Provider.
    pub namespaces: [String; 2],
}

/// Outcomes from some sequence on.
pub struct Live {
    /// The sequence that they follow.
    pub after: u64,
    /// How many are no longer known.
    pub missed: u64,
    /// Those of the past.
    pub past: Vec<Arc<LiveOutcome>>,
    /// Those to come.
    pub next: broadcast::Receiver<Arc<LiveOutcome>>,
}

#[derive(Default)]
struct State {
    alerts: SeenNames,
    providers: SeenNames,
    counts: Counts,
    /// The last outcomes, oldest first.
    last: VecDeque<Arc<LiveOutcome>>,
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
    /// The Alert, the Provider and the cluster of the event, of the delivery.
    pub alert: String,
    pub provider: String,
    pub cluster: String,
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
            let row = row(&outcome, published);
            let mut state = self.state.lock();
            state.add(&outcome, published, is_new);
            let namespaces = namespaces_of_outcome(&outcome);
            let live = Arc::new(LiveOutcome {
                sequence,
                row,
                namespaces,
            });
            state.keep(live.clone());
            if is_new {
                // Within the lock, so that a new reader gets it once. Fails only without receivers.
                let _ = self.live.send(live);
            }
        }
        Ok(())
    }

    /// Outcomes after a sequence, or from now on.
    pub fn live(&self, after: Option<u64>) -> Live {
        let state = self.state.lock();
        let newest = state.last.back().map_or(0, |last| last.sequence);
        // A recreated stream begins again below what the reader had.
        let after = after.filter(|after| *after <= newest).unwrap_or(newest);
        let oldest = state.last.front().map_or(newest + 1, |last| last.sequence);
        let past = state.last.iter().filter(|last| last.sequence > after);
        Live {
            after,
            missed: oldest.saturating_sub(after + 1),
            past: past.cloned().collect(),
            next: self.live.subscribe(),
        }
    }

    /// What was seen of an Alert.
    pub fn alert(&self, namespace: &str, name: &str) -> Option<Seen> {
        self.state.lock().alerts.get(namespace, name)
    }

    /// What was seen of a Provider.
    pub fn provider(&self, namespace: &str, name: &str) -> Option<Seen> {
        self.state.lock().providers.get(namespace, name)
    }

    /// The counts since the last call.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.state.lock().counts)
    }
}

impl State {
    fn keep(&mut self, outcome: Arc<LiveOutcome>) {
        let is_recreated = |last: &Arc<LiveOutcome>| last.sequence >= outcome.sequence;
        if self.last.back().is_some_and(is_recreated) {
            self.last.clear();
        }
        if self.last.len() >= MOST_LAGGING {
            self.last.pop_front();
        }
        self.last.push_back(outcome);
    }

    fn add(&mut self, outcome: &Outcome, published: Timestamp, is_new: bool) {
        let alert = outcome.alert.clone().unwrap_or_default();
        let provider = outcome.provider.clone().unwrap_or_default();
        let attempt = outcome.attempt.clone().unwrap_or_default();
        let is = |label: Label| attempt.outcome == label.as_str();
        let (delivered, failed) = (is(Label::Delivered), is(Label::Retrying) || is(Label::Dead));
        let at = format!("{published:.3}");
        let alert_name = format!("{}/{}", alert.namespace, alert.name);
        let provider_name = format!("{}/{}", provider.namespace, provider.name);
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
                    alert: alert_name.clone(),
                    provider: provider_name.clone(),
                    cluster: outcome.cluster.clone(),
                });
            }
        };
        let planned = outcome.planned_at;
        let seen = self.alerts.entry((alert.namespace, alert.name));
        note(seen, planned.map(|at| time(Some(at))));
        let seen = self.providers.entry((provider.namespace, provider.name));
        note(seen, None);
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

/// What was seen of the names that outcomes had last.
#[derive(Default)]
struct SeenNames {
    /// With the number of the outcome that had the name last.
    names: HashMap<Name, (u64, Seen)>,
    outcomes: u64,
}

impl SeenNames {
    /// The entry of a name. If there are too many, the half that was not seen for the longest time
    /// is forgotten.
    fn entry(&mut self, name: Name) -> &mut Seen {
        self.outcomes += 1;
        if self.names.len() >= MOST_NAMES && !self.names.contains_key(&name) {
            let mut numbers: Vec<u64> = self.names.values().map(|(number, _)| *number).collect();
            let (_, median, _) = numbers.select_nth_unstable(MOST_NAMES / 2);
            let median = *median;
            self.names.retain(|_, (number, _)| *number >= median);
        }
        let (number, seen) = self.names.entry(name).or_default();
        *number = self.outcomes;
        seen
    }

    fn get(&self, namespace: &str, name: &str) -> Option<Seen> {
        let seen = self.names.get(&(namespace.into(), name.into()));
        seen.map(|(_, seen)| seen.clone())
    }
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

    #[test]
    fn a_name_that_is_seen_again_is_kept_while_others_are_forgotten() {
        let mut names = SeenNames::default();
        let name = |number: usize| ("apps".to_owned(), number.to_string());
        for number in 1..=MOST_NAMES * 2 {
            names.entry(name(number));
            names.entry(name(0));
            assert!(names.names.len() <= MOST_NAMES);
        }
        assert!(names.get("apps", "0").is_some());
        assert!(names.get("apps", &(MOST_NAMES * 2).to_string()).is_some());
        assert!(names.get("apps", "1").is_none());
    }

    #[test]
    fn a_reader_gets_what_it_missed_or_how_much() {
        let recent = Recent::default();
        let keep = |sequence| {
            let row = Value::Null;
            let namespaces = Default::default();
            let outcome = Arc::new(LiveOutcome {
                sequence,
                row,
                namespaces,
            });
            recent.state.lock().keep(outcome);
        };
        let past = |after| {
            let live = recent.live(after);
            let past = live.past.iter().map(|outcome| outcome.sequence);
            (live.after, live.missed, past.collect::<Vec<_>>())
        };
        assert_eq!(past(None), (0, 0, vec![]));
        (7..=9).for_each(keep);
        assert_eq!(past(None), (9, 0, vec![]));
        assert_eq!(past(Some(8)), (8, 0, vec![9]));
        assert_eq!(past(Some(3)), (3, 3, vec![7, 8, 9]));
        assert_eq!(past(Some(99)), (9, 0, vec![]));
        keep(2);
        assert_eq!(past(Some(1)), (1, 0, vec![2]));
    }
}
