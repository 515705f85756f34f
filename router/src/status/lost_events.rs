//! Kubernetes Events on Alerts and Providers that lost extension fields, one for each object. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tidings_core::model::id;
use tidings_core::model::text::cut_bytes;
use tidings_rules::LostExtensions;
use tidings_rules::object::GROUP;

use crate::status::write_queue::MinInterval;

/// The reason of these Events.
pub const REASON: &str = "ExtensionsLost";
/// The interval between writes: five per second.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// The longest note that an API server accepts.
const MAX_NOTE_BYTES: usize = 1024;
/// How much of the object's name is used in the Event's name.
const MAX_NAME_BYTES: usize = 230;

/// The Events to write.
#[derive(Debug)]
pub struct LostEvents {
    instance: String,
    /// The names of the Events of all objects that lost fields.
    known: BTreeSet<String>,
    /// The Events that are not written.
    pending: BTreeMap<String, Event>,
    interval: MinInterval,
}

impl LostEvents {
    /// Creates an empty set for this reporting instance.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: cut_bytes(instance, 128),
            known: BTreeSet::new(),
            pending: BTreeMap::new(),
            interval: MinInterval::new(WRITE_INTERVAL),
        }
    }

    /// Adds an Event for each object that lost fields since the last call.
    pub fn update(&mut self, lost: &[LostExtensions], now: Timestamp) {
        let names: BTreeSet<_> = lost.iter().map(name).collect();
        self.pending.retain(|name, _| names.contains(name));
        for lost in lost.iter().filter(|lost| !self.known.contains(&name(lost))) {
            let event = event(lost, now, &self.instance);
            self.pending.insert(name(lost), event);
        }
        self.known = names;
    }

    /// When the next write is due.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        (!self.pending.is_empty()).then(|| self.interval.next_at(now))
    }

    /// The next Event to write.
    pub fn take(&mut self, now: Instant) -> Option<Event> {
        self.interval.record(now);
        Some(self.pending.pop_first()?.1)
    }

    /// Adds an Event again whose write failed.
    pub fn retry(&mut self, event: Event) {
        let name = event.metadata.name.clone().unwrap_or_default();
        if self.known.contains(&name) {
            self.pending.insert(name, event);
        }
    }
}

/// Equal for equal losses, so that a new leader does not write a second Event.
fn name(lost: &LostExtensions) -> String {
    let hash = &id::digest(&[&lost.uid, &lost.fields.join(",")])[..16];
    let object = &lost.identity.name;
    let start = object.get(..MAX_NAME_BYTES).unwrap_or(object);
    format!("{}.{hash}", start.trim_end_matches(['-', '.']))
}

fn event(lost: &LostExtensions, now: Timestamp, instance: &str) -> Event {
    let identity = &lost.identity;
    let kept = match lost.restrictions().as_slice() {
        [] => String::new(),
        kept => format!(
            "; the last known restriction stays in effect: {}",
            kept.join("; ")
        ),
    };
    let note = format!(
        "the API server dropped spec.{}, because the installed CRDs lack extension fields{kept}. \
         Use the annotations of Tidings instead of the fields.",
        lost.fields.join(", spec.")
    );
    Event {
        metadata: ObjectMeta {
            namespace: Some(identity.namespace.clone()),
            name: Some(name(lost)),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        action: Some("ReadRules".to_owned()),
        note: Some(cut_bytes(&note, MAX_NOTE_BYTES)),
        regarding: Some(ObjectReference {
            api_version: Some(format!("{GROUP}/v1beta3")),
            kind: Some(identity.kind.clone()),
            namespace: Some(identity.namespace.clone()),
            name: Some(identity.name.clone()),
            uid: Some(lost.uid.clone()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some("tidings".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use tidings_rules::Identity;

    use super::*;

    fn lost(name: &str, clusters: usize) -> LostExtensions {
        LostExtensions {
            identity: Identity {
                kind: "Alert".into(),
                namespace: "apps".into(),
                name: name.into(),
            },
            uid: name.into(),
            fields: vec!["channel".into(), "clusters".into()],
            clusters: Some(vec!["prod-*".into(); clusters]),
            cluster_selector: None,
        }
    }

    #[test]
    fn each_loss_is_one_event_until_it_ends() {
        let (mut events, now) = (LostEvents::new("r"), Instant::now());
        let update = |events: &mut LostEvents, lost: &[LostExtensions]| {
            events.update(lost, Timestamp::UNIX_EPOCH);
        };
        update(&mut events, &[lost("a", 1), lost("b", 1000)]);
        let first = events.take(now).unwrap();
        let second = events.take(now).unwrap();
        assert!(second.note.unwrap().len() <= MAX_NOTE_BYTES);
        assert_eq!(events.when(now), None);
        update(&mut events, &[lost("a", 1), lost("b", 1000)]);
        assert_eq!(events.when(now), None, "it is known");

        events.retry(first.clone());
        assert_eq!(events.take(now), Some(first.clone()));
        update(&mut events, &[]);
        events.retry(first.clone());
        assert_eq!(events.when(now), None, "the loss has ended");
        update(&mut events, &[lost("a", 1)]);
        assert_eq!(events.take(now).unwrap().metadata, first.metadata);
    }
}
