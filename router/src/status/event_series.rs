//! Kubernetes Events on Alerts about dead letters. Dead letters with the same Alert, Provider and
//! reason form one Event with a count. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::id;
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::{between, from_proto};
use tidings_core::wire::DeadLetter;
use tidings_rules::object::GROUP;

use crate::status::write_queue::MinInterval;

/// The reason of these Events, as in Flux.
pub const REASON: &str = "NotificationDispatchFailed";
/// How often the count of an Event is written.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);
/// The interval between writes of all Events: five per second.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// Older dead letters are ignored, because an API server deletes Events after an hour.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// The longest note that an API server accepts.
const MAX_NOTE_BYTES: usize = 1024;
/// How much of the Alert's name is used in the Event's name.
const MAX_ALERT_NAME_BYTES: usize = 230;

/// Dead letters with the same key form one Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The namespace of Alert and Provider.
    pub namespace: String,
    /// The Alert's name.
    pub alert: String,
    /// The Provider's name.
    pub provider: String,
    /// The reason of the dead letter.
    pub reason: String,
}

/// A write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum EventWrite {
    /// Create an Event.
    Create(Box<Event>),
    /// Update count and time of the Event with this namespace and name.
    Count(String, String, EventSeries),
}

/// A write and the dead letters that it reports.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingWrite {
    /// The key of the Event.
    pub key: SeriesKey,
    /// The sequence in DEAD of the first dead letter that was not reported before.
    pub since: u64,
    /// The write.
    pub write: EventWrite,
}

/// Dead letters with the same key.
#[derive(Debug)]
struct Series {
    event: Event,
    last: Timestamp,
    count: i32,
    /// When the Event was last written; `None` before it is created.
    written: Option<Instant>,
    /// The sequence in DEAD of the first dead letter that is not written.
    since: Option<u64>,
}

/// The current Events.
#[derive(Debug)]
pub struct DeadLetterEvents {
    /// The reporting instance.
    instance: String,
    series: HashMap<SeriesKey, Series>,
    interval: MinInterval,
}

impl DeadLetterEvents {
    /// Creates an empty set for this reporting instance.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: cut_bytes(instance, 128),
            series: HashMap::new(),
            interval: MinInterval::new(WRITE_INTERVAL),
        }
    }

    /// Adds a dead letter of the Alert with this uid. Ignores it if it is older than an hour.
    /// Starts a new Event if there was no dead letter with this key for a minute.
    pub fn add(
        &mut self,
        sequence: u64,
        dead_letter: &DeadLetter,
        uid: &str,
        (now, instant): (Timestamp, Instant),
    ) {
        let died = from_proto(dead_letter.died_at).unwrap_or(now);
        let Some(key) = key(dead_letter).filter(|_| between(died, now) < MAX_AGE) else {
            return;
        };
        if self
            .series
            .get(&key)
            .is_some_and(|series| series.has_ended(instant))
        {
            self.series.remove(&key);
        }
        let instance = &self.instance;
        let series = self.series.entry(key).or_insert_with_key(|key| Series {
            event: event(key, sequence, dead_letter, uid, died, instance),
            last: died,
            count: 0,
            written: None,
            since: None,
        });
        series.count = series.count.saturating_add(1);
        series.last = series.last.max(died);
        series.since.get_or_insert(sequence);
    }

    /// When the next write is due.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        let due = self
            .series
            .values()
            .filter(|series| series.since.is_some())
            .map(|series| series.due(now))
            .min()?;
        Some(due.max(self.interval.next_at(now)))
    }

    /// The write that is due now. It counts as written; call [`Self::retry`] if it fails.
    pub fn take(&mut self, now: Instant) -> Option<PendingWrite> {
        self.series.retain(|_, series| !series.has_ended(now));
        if self.when(now)? > now {
            return None;
        }
        let pending = self
            .series
            .iter_mut()
            .filter(|(_, series)| series.since.is_some());
        let (key, series) =
            pending.min_by_key(|(key, series)| (series.due(now), (*key).clone()))?;
        self.interval.record(now);
        let counted = EventSeries {
            count: series.count,
            last_observed_time: MicroTime(series.last),
        };
        let write = if series.written.is_none() {
            let event = Event {
                series: (series.count > 1).then_some(counted),
                ..series.event.clone()
            };
            EventWrite::Create(Box::new(event))
        } else {
            let ObjectMeta {
                namespace, name, ..
            } = series.event.metadata.clone();
            EventWrite::Count(
                namespace.unwrap_or_default(),
                name.unwrap_or_default(),
                counted,
            )
        };
        series.written = Some(now);
        Some(PendingWrite {
            key: key.clone(),
            since: series.since.take().unwrap_or_default(),
            write,
        })
    }

    /// Schedules a failed write again: as a new Event, or as an update of the existing Event.
    pub fn retry(&mut self, PendingWrite { key, since, .. }: &PendingWrite, as_new: bool) {
        if let Some(series) = self.series.get_mut(key) {
            series.since = Some(*since);
            if as_new {
                series.written = None;
                series.event.metadata.name = Some(name(key, *since));
            }
        }
    }

    /// The sequence in DEAD of the first dead letter that is not written.
    pub fn since(&self) -> Option<u64> {
        self.series.values().filter_map(|series| series.since).min()
    }
}

impl Series {
    /// When dead letters that are not written yet may be written.
    fn due(&self, now: Instant) -> Instant {
        self.written
            .map_or(now, |written| (written + COUNT_INTERVAL).max(now))
    }

    fn has_ended(&self, now: Instant) -> bool {
        self.since.is_none() && self.due(now) <= now
    }
}

fn key(dead_letter: &DeadLetter) -> Option<SeriesKey> {
    let delivery = dead_letter.delivery.as_ref()?;
    let (alert, provider) = (delivery.alert.as_ref()?, delivery.provider.as_ref()?);
    let (namespace, provider) = (alert.namespace.clone(), provider.name.clone());
    Some(SeriesKey {
        namespace,
        alert: alert.name.clone(),
        provider,
        reason: dead_letter.reason.clone(),
    })
}

/// Derives the Event's name from its first dead letter, so that a repeated write does not create a
/// second Event.
fn name(key: &SeriesKey, sequence: u64) -> String {
    let hash = &id::digest(&[
        &key.alert,
        &key.provider,
        &key.reason,
        &sequence.to_string(),
    ])[..16];
    format!(
        "{}.{hash}",
        key.alert
            .get(..MAX_ALERT_NAME_BYTES)
            .unwrap_or(&key.alert)
            .trim_end_matches(['-', '.'])
    )
}

fn event(
    key: &SeriesKey,
    sequence: u64,
    dead_letter: &DeadLetter,
    uid: &str,
    died: Timestamp,
    instance: &str,
) -> Event {
    let reference = |kind: &str, name: &str, uid: Option<&str>| ObjectReference {
        api_version: Some(format!("{GROUP}/v1beta3")),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    };
    Event {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(name(key, sequence)),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        action: Some("Deliver".to_owned()),
        note: Some(cut_bytes(&note(key, dead_letter), MAX_NOTE_BYTES)),
        regarding: Some(reference("Alert", &key.alert, Some(uid))),
        related: Some(reference("Provider", &key.provider, None)),
        event_time: Some(MicroTime(died)),
        reporting_controller: Some("tidings".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// Safe to publish: the detail of a dead letter contains no secrets.
fn note(key: &SeriesKey, dead_letter: &DeadLetter) -> String {
    let event = dead_letter.delivery.as_ref().and_then(carried_event);
    let object = event.and_then(|event| event.involved_object.as_ref());
    let about = object.map_or_else(
        || "an unknown object".to_owned(),
        |object| format!("{} {}/{}", object.kind, object.namespace, object.name),
    );
    let SeriesKey {
        namespace,
        provider,
        reason,
        ..
    } = key;
    format!(
        "event of {about} not delivered to Provider {namespace}/{provider} ({reason}): {}",
        dead_letter.detail
    )
}

#[cfg(test)]
mod tests;
