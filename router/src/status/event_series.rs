//! Deliveries that are given up, as Kubernetes Events on their Alert: equal ones are one Event that
//! counts. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tidings_core::model::id;
use tidings_core::model::time::{between, from_proto};
use tidings_core::wire::DeadLetter;
use tidings_rules::object::GROUP;

use crate::status::ready_condition::cut;
use crate::status::write_queue::Gap;

/// The reason of these Events, as in Flux.
pub const REASON: &str = "NotificationDispatchFailed";
/// An Event that counts is written once in this time.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
/// All Events together: five writes a second.
const WRITES_APART: Duration = Duration::from_millis(200);
/// An API server forgets an Event after an hour, so what is older need not be told.
const TOLD_WITHIN: Duration = Duration::from_secs(3600);
/// The longest note that an API server takes.
const LONGEST_NOTE_BYTES: usize = 1024;
/// Leaves room in an object's name for the rest of the Event's.
const LONGEST_STEM_BYTES: usize = 230;

/// What tells Events of one kind from those of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace of Alert and Provider.
    pub namespace: String,
    /// The Alert's name.
    pub alert: String,
    /// The Provider's name.
    pub provider: String,
    /// Why it was given up, a word.
    pub reason: String,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new Event.
    Create(Box<Event>),
    /// The Event of this namespace and name has happened again: its new count and time.
    Count(String, String, EventSeries),
}

/// What is to be written, and what for.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Which Event.
    pub key: Key,
    /// The sequence in DEAD of the first letter that it tells of and that was not told.
    pub since: u64,
    /// What to write.
    pub write: Write,
}

/// Equal dead letters.
#[derive(Debug)]
struct Series {
    event: Event,
    last: Timestamp,
    count: i32,
    /// When the API server was last told; nothing before it knows the Event.
    told: Option<Instant>,
    /// The sequence in DEAD of the first one that it does not know.
    since: Option<u64>,
}

/// The Events of late.
#[derive(Debug)]
pub struct Notices {
    /// Who reports them.
    instance: String,
    series: HashMap<Key, Series>,
    gap: Gap,
}

impl Notices {
    /// None yet.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: cut(instance, 128),
            series: HashMap::new(),
            gap: Gap::new(WRITES_APART),
        }
    }

    /// A letter of an Alert with this uid. What is too old is left out; after a minute without any
    /// a new Event begins.
    pub fn note(
        &mut self,
        sequence: u64,
        letter: &DeadLetter,
        uid: &str,
        (now, instant): (Timestamp, Instant),
    ) {
        let died = from_proto(letter.died_at).unwrap_or(now);
        let Some(key) = key(letter).filter(|_| between(died, now) < TOLD_WITHIN) else {
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
            event: event(key, sequence, letter, uid, died, instance),
            last: died,
            count: 0,
            told: None,
            since: None,
        });
        series.count = series.count.saturating_add(1);
        series.last = series.last.max(died);
        series.since.get_or_insert(sequence);
    }

    /// When there is something to write.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        let due = self
            .series
            .values()
            .filter(|series| series.since.is_some())
            .map(|series| series.due(now))
            .min()?;
        Some(due.max(self.gap.opens(now)))
    }

    /// What to write now. It counts as written.
    pub fn take(&mut self, now: Instant) -> Option<Taken> {
        self.series.retain(|_, series| !series.has_ended(now));
        if self.when(now)? > now {
            return None;
        }
        let waiting = self
            .series
            .iter_mut()
            .filter(|(_, series)| series.since.is_some());
        let (key, series) =
            waiting.min_by_key(|(key, series)| (series.due(now), (*key).clone()))?;
        self.gap.pass(now);
        let counted = EventSeries {
            count: series.count,
            last_observed_time: MicroTime(series.last),
        };
        let write = if series.told.is_none() {
            let event = Event {
                series: (series.count > 1).then_some(counted),
                ..series.event.clone()
            };
            Write::Create(Box::new(event))
        } else {
            let ObjectMeta {
                namespace, name, ..
            } = series.event.metadata.clone();
            Write::Count(
                namespace.unwrap_or_default(),
                name.unwrap_or_default(),
                counted,
            )
        };
        series.told = Some(now);
        Some(Taken {
            key: key.clone(),
            since: series.since.take().unwrap_or_default(),
            write,
        })
    }

    /// What was taken could not be written and is to be tried again: as a new Event, or as the one
    /// that is there.
    pub fn again(&mut self, Taken { key, since, .. }: &Taken, as_new: bool) {
        if let Some(series) = self.series.get_mut(key) {
            series.since = Some(*since);
            if as_new {
                series.told = None;
                series.event.metadata.name = Some(name(key, *since));
            }
        }
    }

    /// The sequence in DEAD of the first letter that is not told yet.
    pub fn since(&self) -> Option<u64> {
        self.series.values().filter_map(|series| series.since).min()
    }
}

impl Series {
    /// When the API server may be told of what it does not know.
    fn due(&self, now: Instant) -> Instant {
        self.told
            .map_or(now, |told| (told + COUNTED_EVERY).max(now))
    }

    fn has_ended(&self, now: Instant) -> bool {
        self.since.is_none() && self.due(now) <= now
    }
}

fn key(letter: &DeadLetter) -> Option<Key> {
    let delivery = letter.delivery.as_ref()?;
    let (alert, provider) = (delivery.alert.as_ref()?, delivery.provider.as_ref()?);
    let (namespace, provider) = (alert.namespace.clone(), provider.name.clone());
    Some(Key {
        namespace,
        alert: alert.name.clone(),
        provider,
        reason: letter.reason.clone(),
    })
}

/// The name follows from the letter, so that telling it twice is telling it once.
fn name(key: &Key, sequence: u64) -> String {
    let hash = &id::digest(&[
        &key.alert,
        &key.provider,
        &key.reason,
        &sequence.to_string(),
    ])[..16];
    format!(
        "{}.{hash}",
        key.alert
            .get(..LONGEST_STEM_BYTES)
            .unwrap_or(&key.alert)
            .trim_end_matches(['-', '.'])
    )
}

fn event(
    key: &Key,
    sequence: u64,
    letter: &DeadLetter,
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
        note: Some(cut(&note(key, letter), LONGEST_NOTE_BYTES)),
        regarding: Some(reference("Alert", &key.alert, Some(uid))),
        related: Some(reference("Provider", &key.provider, None)),
        event_time: Some(MicroTime(died)),
        reporting_controller: Some("tidings".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// The details of a dead letter hold no secrets.
fn note(key: &Key, letter: &DeadLetter) -> String {
    let event = letter
        .delivery
        .as_ref()
        .and_then(|delivery| delivery.event.as_ref());
    let object = event.and_then(|event| event.involved_object.as_ref());
    let about = object.map_or_else(
        || "an object".to_owned(),
        |object| format!("{} {}/{}", object.kind, object.namespace, object.name),
    );
    let Key {
        namespace,
        provider,
        reason,
        ..
    } = key;
    format!(
        "a notification about {about} to Provider {namespace}/{provider} is given up ({reason}): {}",
        letter.detail
    )
}

#[cfg(test)]
mod tests;
