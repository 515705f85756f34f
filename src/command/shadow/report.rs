//! Summarizes records of shadow mode. Pure. Scripts read the JSON, so its keys must not change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use tidings_core::model::time::to_proto;
use tidings_core::wire::ShadowRecord;
use tidings_workers::differences::that_concern;

use crate::command::tool::time;

/// The most pairs of Alert and Provider that are counted apart, and the most kinds of failures.
const MOST_GROUPS: usize = 5_000;

/// The numbers by outcome.
pub type Outcomes = BTreeMap<String, u64>;

/// What was read so far.
#[derive(Debug, Default)]
pub struct Summary {
    records: u64,
    outcomes: Outcomes,
    routes: BTreeMap<RouteKey, RouteCount>,
    failures: BTreeMap<FailureKey, LatestFailure>,
    template_errors: BTreeMap<(String, String), (u64, String)>,
    types: BTreeSet<String>,
    not_listed: u64,
    failures_not_listed: u64,
}

/// Alert, Provider and its type.
type RouteKey = (String, String, String);
/// Provider, outcome and reason.
type FailureKey = (String, String, String);

/// How often it failed like this, and the last time.
#[derive(Debug, Default)]
struct LatestFailure {
    count: u64,
    detail: String,
    alert: String,
}

#[derive(Debug)]
struct RouteCount {
    outcomes: Outcomes,
    latest: Sample,
}

/// The output of `tidings shadow report --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub since: String,
    pub records: u64,
    pub outcomes: Outcomes,
    /// By Alert and Provider, the most frequent first.
    pub routes: Vec<Route>,
    /// What would not be delivered at once, by Provider and reason.
    pub failures: Vec<FailureGroup>,
    pub template_errors: Vec<TemplateError>,
    /// Records of Alerts and Providers that are not listed, because there are too many.
    pub not_listed: u64,
    /// Records with failures that are not listed, because there are too many kinds.
    pub failures_not_listed: u64,
    /// The documented differences to notification-controller that concern these provider types.
    pub differences: Vec<DifferenceRow>,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Route {
    pub alert: String,
    pub provider: String,
    pub r#type: String,
    pub outcomes: Outcomes,
}

#[derive(Clone, Debug, Serialize)]
pub struct FailureGroup {
    pub provider: String,
    pub outcome: String,
    pub reason: String,
    pub count: u64,
    /// The detail of the latest one.
    pub detail: String,
    pub alert: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct TemplateError {
    pub alert: String,
    pub provider: String,
    pub count: u64,
    pub error: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct DifferenceRow {
    pub area: &'static str,
    pub controller: &'static str,
    pub tidings: &'static str,
}

/// One record.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub recorded_at: String,
    pub event_id: String,
    pub cluster: String,
    pub object: String,
    pub severity: String,
    pub alert: String,
    pub provider: String,
    pub r#type: String,
    pub outcome: String,
    pub detail: String,
    pub title: String,
    pub requests: Vec<SampleRequest>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleRequest {
    pub method: String,
    pub origin: String,
    pub body_bytes: u64,
}

impl Summary {
    /// Adds a record.
    pub fn add(&mut self, record: ShadowRecord) {
        let (reason, error) = (record.reason.clone(), record.template_error.clone());
        let sample = Sample::of(record);
        self.records += 1;
        *self.outcomes.entry(sample.outcome.clone()).or_default() += 1;
        let (alert, provider) = (sample.alert.clone(), sample.provider.clone());
        let route = (alert.clone(), provider.clone(), sample.r#type.clone());
        if self.routes.len() >= MOST_GROUPS && !self.routes.contains_key(&route) {
            self.not_listed += 1;
            return;
        }
        self.types.insert(sample.r#type.clone());
        if !error.is_empty() {
            let (count, latest) = self.template_errors.entry((alert, provider)).or_default();
            (*count, *latest) = (*count + 1, error);
        }
        if !reason.is_empty() {
            self.add_failure(reason, &sample);
        }
        let outcome = sample.outcome.clone();
        let known = self.routes.remove(&route);
        let mut outcomes = known.map(|known| known.outcomes).unwrap_or_default();
        *outcomes.entry(outcome).or_default() += 1;
        let latest = sample;
        self.routes.insert(route, RouteCount { outcomes, latest });
    }

    fn add_failure(&mut self, reason: String, sample: &Sample) {
        let key = (sample.provider.clone(), sample.outcome.clone(), reason);
        if self.failures.len() >= MOST_GROUPS && !self.failures.contains_key(&key) {
            self.failures_not_listed += 1;
            return;
        }
        let failure = self.failures.entry(key).or_default();
        failure.count += 1;
        failure.detail.clone_from(&sample.detail);
        failure.alert.clone_from(&sample.alert);
    }

    /// The report, with up to `samples` samples.
    pub fn report(self, since: Timestamp, samples: usize) -> Report {
        let types = self.types;
        let mut counted: Vec<_> = self.routes.into_iter().collect();
        counted.sort_by_key(|(_, count)| Reverse(count.outcomes.values().sum::<u64>()));
        let latest = counted.iter().map(|(_, count)| count.latest.clone());
        let samples = latest.take(samples).collect();
        let failures = self.failures.into_iter();
        let mut failures: Vec<_> = failures
            .map(|((provider, outcome, reason), latest)| FailureGroup {
                provider,
                outcome,
                reason,
                count: latest.count,
                detail: latest.detail,
                alert: latest.alert,
            })
            .collect();
        failures.sort_by_key(|group| Reverse(group.count));
        let template_errors = self.template_errors.into_iter();
        let template_errors = template_errors
            .map(|((alert, provider), (count, error))| TemplateError {
                alert,
                provider,
                count,
                error,
            })
            .collect();
        let differences = that_concern(|kind| types.contains(kind))
            .map(|row| DifferenceRow {
                area: row.area.title(),
                controller: row.controller,
                tidings: row.tidings,
            })
            .collect();
        Report {
            since: time(Some(to_proto(since))),
            records: self.records,
            outcomes: self.outcomes,
            routes: counted.into_iter().map(Route::of).collect(),
            failures,
            template_errors,
            not_listed: self.not_listed,
            failures_not_listed: self.failures_not_listed,
            differences,
            samples,
        }
    }
}

impl Route {
    fn of(((alert, provider, kind), count): (RouteKey, RouteCount)) -> Self {
        Self {
            alert,
            provider,
            r#type: kind,
            outcomes: count.outcomes,
        }
    }
}

impl Sample {
    fn of(record: ShadowRecord) -> Self {
        let alert = record.alert.unwrap_or_default();
        let provider = record.provider.unwrap_or_default();
        let event = record.excerpt.unwrap_or_default();
        let object = event.involved_object.unwrap_or_default();
        let requests = record.requests.into_iter().map(|request| SampleRequest {
            method: request.method,
            origin: request.origin,
            body_bytes: request.body_bytes,
        });
        Self {
            recorded_at: time(record.recorded_at),
            event_id: record.event_id,
            cluster: event.cluster,
            object: format!("{}/{}/{}", object.kind, object.namespace, object.name),
            severity: event.severity,
            alert: format!("{}/{}", alert.namespace, alert.name),
            provider: format!("{}/{}", provider.namespace, provider.name),
            r#type: provider.r#type,
            outcome: record.outcome,
            detail: record.detail,
            title: record.title,
            requests: requests.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{AlertReference, ProviderReference};

    use super::*;

    fn record(alert: &str, outcome: &str, reason: &str) -> ShadowRecord {
        ShadowRecord {
            alert: Some(AlertReference {
                namespace: "apps".into(),
                name: alert.into(),
                ..AlertReference::default()
            }),
            provider: Some(ProviderReference {
                namespace: "apps".into(),
                name: "chat".into(),
                r#type: "slack".into(),
                ..ProviderReference::default()
            }),
            outcome: outcome.into(),
            reason: reason.into(),
            ..ShadowRecord::default()
        }
    }

    #[test]
    fn records_are_counted_by_alert_provider_and_outcome() {
        let mut summary = Summary::default();
        for (alert, outcome, reason) in [
            ("all", "would-send", ""),
            ("all", "would-send", ""),
            ("all", "would-wait", "missing"),
            ("errors", "would-wait", "missing"),
        ] {
            summary.add(record(alert, outcome, reason));
        }
        let report = summary.report(Timestamp::UNIX_EPOCH, 1);
        assert_eq!((report.records, report.not_listed), (4, 0));
        assert_eq!(report.outcomes["would-send"], 2);
        assert_eq!(report.routes.len(), 2);
        assert_eq!(report.routes[0].alert, "apps/all");
        assert_eq!(report.routes[0].outcomes["would-wait"], 1);
        assert_eq!((report.failures.len(), report.failures[0].count), (1, 2));
        assert_eq!(report.samples.len(), 1);
        let concern = |row: &DifferenceRow| row.controller.contains("`/slack`");
        assert!(!report.differences.is_empty() && !report.differences.iter().any(concern));
    }

    #[test]
    fn the_memory_of_a_report_is_limited() {
        let mut summary = Summary::default();
        for number in 0..MOST_GROUPS + 10 {
            summary.add(record(&format!("a{number}"), "would-send", ""));
        }
        let report = summary.report(Timestamp::UNIX_EPOCH, 0);
        assert_eq!(report.routes.len(), MOST_GROUPS);
        assert_eq!(report.not_listed, 10);
        assert_eq!(report.records, MOST_GROUPS as u64 + 10);
    }

    #[test]
    fn kinds_of_failures_that_are_too_many_are_counted_and_known_ones_still_change() {
        let mut summary = Summary::default();
        for number in 0..MOST_GROUPS + 10 {
            summary.add(record("all", "would-fail", &format!("reason-{number}")));
        }
        let mut again = record("errors", "would-fail", "reason-0");
        again.detail = "the latest".into();
        summary.add(again);
        let report = summary.report(Timestamp::UNIX_EPOCH, 0);
        assert_eq!(report.failures.len(), MOST_GROUPS);
        assert_eq!(report.failures_not_listed, 10);
        let first = &report.failures[0];
        let latest = (first.count, first.detail.as_str(), first.alert.as_str());
        assert_eq!(latest, (2, "the latest", "apps/errors"));
    }
}
