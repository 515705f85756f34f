//! The report of shadow mode for people.

use super::report::{Outcomes, Report, Sample};

/// The most pairs of Alert and Provider that are listed.
const MOST_ROUTES: usize = 50;

/// The lines of the report.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "{} records since {}: {}",
        report.records,
        report.since,
        outcomes(&report.outcomes)
    )];
    if report.records == 0 {
        return lines;
    }
    lines.push("ALERTS AND PROVIDERS".to_owned());
    lines.extend(report.routes.iter().take(MOST_ROUTES).map(|route| {
        format!(
            "  alert {}  provider {} ({})  {}",
            route.alert,
            route.provider,
            route.r#type,
            outcomes(&route.outcomes)
        )
    }));
    let more = report.routes.len().saturating_sub(MOST_ROUTES);
    if more > 0 {
        lines.push(format!("  and {more} more, see --output json"));
    }
    if report.not_listed > 0 {
        let not_listed = report.not_listed;
        lines.push(format!("  and {not_listed} records of others"));
    }
    lines.push("NOT DELIVERED AT ONCE".to_owned());
    if report.failures.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.extend(report.failures.iter().map(|group| {
        format!(
            "  {} {}: {}, {} (alert {}): {}",
            group.count, group.outcome, group.provider, group.reason, group.alert, group.detail
        )
    }));
    if !report.template_errors.is_empty() {
        lines.push("TEMPLATES THAT FAIL".to_owned());
    }
    lines.extend(report.template_errors.iter().map(|error| {
        format!(
            "  {}: alert {}, provider {}: {}",
            error.count, error.alert, error.provider, error.error
        )
    }));
    if !report.samples.is_empty() {
        lines.push("SAMPLES".to_owned());
    }
    lines.extend(report.samples.iter().map(sample));
    lines.push(format!(
        "DIFFERENCES TO NOTIFICATION-CONTROLLER  {} concern these types: see --output json, or \
         docs/reference/differences.md",
        report.differences.len()
    ));
    lines
}

fn outcomes(outcomes: &Outcomes) -> String {
    let parts: Vec<String> = outcomes
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    }
}

fn sample(sample: &Sample) -> String {
    let requests: Vec<String> = sample
        .requests
        .iter()
        .map(|request| {
            format!(
                "{} {} ({} bytes)",
                request.method, request.origin, request.body_bytes
            )
        })
        .collect();
    format!(
        "  {}  {}  alert {}  {} ({})  {:?}  {}",
        sample.recorded_at,
        sample.outcome,
        sample.alert,
        sample.provider,
        sample.r#type,
        sample.title,
        requests.join(", ")
    )
}
