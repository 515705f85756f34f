//! The trace as text.

use super::report::{Absence, AlertVerdict, DeliveryTrace, EventSummary, EventTrace, Trace};
use crate::command::status::report::Cluster;
use crate::command::tool::{count, length};

/// The most Alerts that are listed although they do not name the object.
const MOST_OTHERS: usize = 5;

/// The lines for people.
pub fn lines(trace: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    for event in &trace.events {
        lines.extend(event_lines(event));
        lines.push(String::new());
    }
    if let Some(absence) = &trace.absence {
        lines.extend(absence_lines(absence, trace));
        lines.push(String::new());
    }
    let notes = trace.notes.iter();
    lines.extend(notes.map(|note| format!("note: {}", note.message)));
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn event_lines(trace: &EventTrace) -> Vec<String> {
    let event = &trace.event;
    let mut lines = vec![format!("event {} {}", event.id, object(event))];
    if !event.is_stored {
        lines.push("  no longer stored in EVENTS".to_owned());
    }
    if let Some(revision) = &event.revision {
        lines.push(format!("  revision {revision}"));
    }
    let timeline = trace.timeline.iter();
    lines.extend(timeline.map(|entry| format!("  {}  {}", entry.at, entry.text)));
    if trace.routing == "waits" {
        lines.push("  waits for a router".to_owned());
    }
    lines.push("  alerts".to_owned());
    lines.extend(verdict_lines(trace));
    if !trace.deliveries.is_empty() {
        lines.push("  deliveries".to_owned());
        let deliveries = trace.deliveries.iter();
        lines.extend(deliveries.map(|delivery| format!("    {}", delivery_line(delivery))));
    }
    lines
}

fn object(event: &EventSummary) -> String {
    match event.namespace.as_str() {
        "" => format!("{} {}", event.kind, event.name),
        namespace => format!("{} {namespace}/{}", event.kind, event.name),
    }
}

fn verdict_lines(trace: &EventTrace) -> Vec<String> {
    let is_other = |verdict: &&AlertVerdict| verdict.verdict == "no-event-source-matches";
    let (others, named): (Vec<_>, Vec<_>) = trace.verdicts.iter().partition(is_other);
    let shown = if others.len() > MOST_OTHERS {
        0
    } else {
        others.len()
    };
    let mut lines: Vec<_> = named
        .into_iter()
        .chain(others.iter().copied().take(shown))
        .map(|verdict| format!("    {}", verdict_line(verdict)))
        .collect();
    let rest = others.len() - shown + trace.verdicts_left_out;
    if rest > 0 {
        let noun = count(rest, "other Alert");
        lines.push(format!("    {noun} not listed, see --output json"));
    }
    if lines.is_empty() {
        lines.push("    none".to_owned());
    }
    lines
}

fn verdict_line(verdict: &AlertVerdict) -> String {
    let how = match (verdict.is_recomputed, verdict.today) {
        (true, _) => " (recomputed with today's rules)".to_owned(),
        (false, Some(today)) => format!(" (today's rules: {today})"),
        (false, None) => String::new(),
    };
    format!(
        "{}: {}{how}: {}",
        verdict.alert, verdict.verdict, verdict.detail
    )
}

fn delivery_line(delivery: &DeliveryTrace) -> String {
    let mut line = format!(
        "{} to {} ({}): {}",
        delivery.id, delivery.provider, delivery.kind, delivery.state
    );
    if let Some(waits) = delivery.waits_for {
        line.push_str(&format!(", waits for {waits}"));
    }
    if let Some(next) = &delivery.next_attempt_at {
        line.push_str(&format!(" until {next}"));
    }
    if !delivery.reason.is_empty() {
        line.push_str(&format!(", {}", delivery.reason));
    }
    if !delivery.detail.is_empty() {
        line.push_str(&format!(": {}", delivery.detail));
    }
    if let Some(circuit) = &delivery.circuit {
        line.push_str(&format!("; circuit {circuit}"));
    }
    line
}

fn absence_lines(absence: &Absence, trace: &Trace) -> Vec<String> {
    let mut lines = vec![format!("no event of {} found", trace.query)];
    lines.push("last events".to_owned());
    lines.extend(absence.last_events.iter().map(|event| {
        let at = event.received_at.as_deref().unwrap_or("-");
        format!(
            "  {at} {} from cluster {}: {} {}: {}",
            event.id, event.cluster, event.severity, event.reason, event.message
        )
    }));
    if absence.last_events.is_empty() {
        lines.push("  none stored".to_owned());
    }
    lines.push("clusters".to_owned());
    lines.extend(absence.clusters.iter().map(cluster_line));
    if absence.clusters.is_empty() {
        lines.push("  none known".to_owned());
    }
    if absence.clusters_left_out > 0 {
        let number = absence.clusters_left_out;
        lines.push(format!("  and {number} more, see `tidings status`"));
    }
    lines.extend(rule_lines(absence));
    if !absence.problems.is_empty() {
        lines.push("problems".to_owned());
        let problems = absence.problems.iter();
        lines.extend(problems.map(|problem| format!("  {}: {}", problem.code, problem.message)));
    }
    lines
}

fn cluster_line(cluster: &Cluster) -> String {
    let connected = match (cluster.is_revoked, cluster.ingests) {
        (true, _) => "revoked".to_owned(),
        (false, 0) => "not connected".to_owned(),
        (false, number) => format!("connected, {}", count(number, "ingest")),
    };
    let silent = match cluster.silent_seconds {
        None => "no event stored".to_owned(),
        Some(seconds) => {
            let ago = length(std::time::Duration::from_secs(seconds));
            format!("last event {ago} ago")
        }
    };
    format!("  {}  {connected}  {silent}", cluster.name)
}

fn rule_lines(absence: &Absence) -> Vec<String> {
    let Some(tried) = &absence.tried else {
        return Vec::new();
    };
    let what = match tried.is_last_event {
        true => "the last event".to_owned(),
        false => format!("an event of severity {} without a message", tried.severity),
    };
    let mut lines = vec![format!(
        "alerts that name the object, and what they decide about {what} with today's rules"
    )];
    let verdicts = absence.would_match.iter();
    lines.extend(verdicts.map(|verdict| {
        format!(
            "  {}: {}: {}",
            verdict.alert, verdict.verdict, verdict.detail
        )
    }));
    if absence.would_match.is_empty() {
        let others = count(absence.other_alerts, "Alert");
        lines.push(format!("  none of {others} names it"));
    }
    lines
}
