//! The report of shadow mode for people.

use super::report::{Outcomes, Report, Sample};

/// The most pairs of Alert and Provider that are listed.
const MOST_ROUTES: usize = 50;
/// The most kinds of failures, and the most templates that fail, that are listed.
const MOST_FAILURES: usize = 50;

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
    lines.extend(rest(report.routes.len(), MOST_ROUTES));
    if report.not_listed > 0 {
        let not_listed = report.not_listed;
        lines.push(format!("  and {not_listed} records of others"));
    }
    lines.push("NOT DELIVERED AT ONCE".to_owned());
    if report.failures.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.extend(report.failures.iter().take(MOST_FAILURES).map(|group| {
        format!(
            "  {} {}: {}, {} (alert {}): {}",
            group.count, group.outcome, group.provider, group.reason, group.alert, group.detail
        )
    }));
    lines.extend(rest(report.failures.len(), MOST_FAILURES));
    if report.failures_not_listed > 0 {
        let not_listed = report.failures_not_listed;
        lines.push(format!("  and {not_listed} records of other kinds"));
    }
    if !report.template_errors.is_empty() {
        lines.push("TEMPLATES THAT FAIL".to_owned());
    }
    let template_errors = report.template_errors.iter().take(MOST_FAILURES);
    lines.extend(template_errors.map(|error| {
        format!(
            "  {}: alert {}, provider {}: {}",
            error.count, error.alert, error.provider, error.error
        )
    }));
    lines.extend(rest(report.template_errors.len(), MOST_FAILURES));
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

/// How many of a list are not shown.
fn rest(number: usize, listed: usize) -> Option<String> {
    let more = number.checked_sub(listed).filter(|more| *more > 0)?;
    Some(format!("  and {more} more, see --output json"))
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidings_core::wire::ShadowRecord;

    use super::super::report::Summary;
    use super::*;

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let mut summary = Summary::default();
        for number in 0..200 {
            summary.add(ShadowRecord {
                outcome: "would-fail".into(),
                reason: format!("reason-{number}"),
                template_error: "unknown field".into(),
                alert: Some(tidings_core::AlertReference {
                    name: format!("alert-{number}"),
                    ..Default::default()
                }),
                ..ShadowRecord::default()
            });
        }
        let lines = lines(&summary.report(Timestamp::UNIX_EPOCH, 0));
        assert!(
            lines.len() < 3 * (MOST_FAILURES + 2) + 10,
            "{}",
            lines.len()
        );
        let cut = lines
            .iter()
            .filter(|line| line.starts_with("  and 150 more"));
        assert_eq!(cut.count(), 3);
    }
}
