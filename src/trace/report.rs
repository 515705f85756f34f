//! The trace as JSON. Scripts and the console read it, so its keys, codes and values must not
//! change; new ones may be added.

use serde::Serialize;

use crate::command::status::report::{Cluster, Problem};

/// The trace of the wanted events.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// What was asked for.
    pub query: String,
    /// The time of the server's clock.
    pub at: String,
    /// Whether there were rules to recompute verdicts with.
    pub has_rules: bool,
    /// The events, oldest first.
    pub events: Vec<EventTrace>,
    /// If no event was found: what explains it.
    pub absence: Option<Absence>,
    /// What limits this trace.
    pub notes: Vec<Note>,
}

/// Something that the reader of a trace must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// A code that does not change.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// An event, and what became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTrace {
    #[serde(flatten)]
    pub event: EventSummary,
    /// `routed`, `waits` for a router, or `unknown`.
    pub routing: &'static str,
    /// What each Alert decided, the closest first.
    pub verdicts: Vec<AlertVerdict>,
    /// The number of verdicts that are left out, because there are too many.
    pub verdicts_left_out: usize,
    pub deliveries: Vec<DeliveryTrace>,
    /// All of it in the order of time.
    pub timeline: Vec<Entry>,
}

/// An event, without its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    pub id: String,
    pub cluster: String,
    /// The controller that reported it, or its instance.
    pub source: String,
    pub severity: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub reason: String,
    /// The beginning of the message.
    pub message: String,
    pub revision: Option<String>,
    /// When it happened, by the sender's clock.
    pub happened_at: Option<String>,
    /// When ingest received it.
    pub received_at: Option<String>,
    /// When it was stored in EVENTS; absent if it is no longer there.
    pub stored_at: Option<String>,
    /// Its sequence in EVENTS; 0 if it is no longer there.
    pub sequence: u64,
    /// Whether EVENTS still holds it.
    pub is_stored: bool,
}

/// What an Alert decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertVerdict {
    pub alert: String,
    pub verdict: &'static str,
    pub detail: String,
    /// Whether it was recomputed with today's rules. Otherwise a delivery proves that it matched.
    pub is_recomputed: bool,
    /// If a delivery proves that it matched, and today's rules decide otherwise: that verdict.
    pub today: Option<&'static str>,
}

/// A delivery and its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryTrace {
    pub id: String,
    pub alert: String,
    pub provider: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// 0, or the number of the replay.
    pub generation: Option<u32>,
    pub planned_at: Option<String>,
    /// An outcome that ended it, `parked`, `ready`, or `unknown`.
    pub state: &'static str,
    /// Why it is in this state.
    pub reason: String,
    pub detail: String,
    /// What a ready or parked one waits for.
    pub waits_for: Option<&'static str>,
    pub next_attempt_at: Option<String>,
    /// The circuit of its destination, if that is not closed.
    pub circuit: Option<String>,
    pub attempts: Vec<AttemptTrace>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptTrace {
    /// 0 if another delivery wrote this state.
    pub number: u32,
    pub started_at: Option<String>,
    pub duration_ms: u32,
    /// The time since the attempt before ended, or since planning.
    pub waited_ms: Option<u64>,
    pub outcome: String,
    pub reason: String,
    /// The HTTP status of the answer.
    pub status: Option<u32>,
    pub detail: String,
    pub template_error: String,
}

/// Something that happened, or will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub at: String,
    /// `happened`, `received`, `stored`, `planned`, `attempt`, `dead`, or `next-attempt`.
    pub code: &'static str,
    pub delivery_id: Option<String>,
    /// A sentence.
    pub text: String,
}

/// What explains that no event was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Absence {
    /// The last events of the object before the wanted time, oldest first.
    pub last_events: Vec<EventSummary>,
    /// The clusters that it can come from: those that are not connected come first.
    pub clusters: Vec<Cluster>,
    pub clusters_left_out: usize,
    /// What is wrong now, as `tidings status` says it.
    pub problems: Vec<Problem>,
    /// The event that rules were tried with: the last one, or one that was made up.
    pub tried: Option<Tried>,
    /// What the Alerts that name the object decide about it, with today's rules.
    pub would_match: Vec<AlertVerdict>,
    /// The number of Alerts that do not name the object.
    pub other_alerts: usize,
}

/// An event that rules were tried with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    pub cluster: String,
    pub severity: String,
    pub message: String,
    /// Whether it is the object's last event. Otherwise message, labels and metadata are unknown.
    pub is_last_event: bool,
}
