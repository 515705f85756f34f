//! The output of `tidings test`: verdicts, metadata, and planned requests.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::case::{Input, load, present};
use crate::compare::is_same_path;
use crate::report::{Report, expect_equal};
use crate::run::{Delivery, Output, Run};

/// One run, which may cover several recorded cases with one alert each.
#[derive(Debug, Deserialize)]
struct DryRun {
    name: String,
    skip: Option<String>,
    #[serde(flatten)]
    input: Input,
    #[serde(default)]
    expect: Vec<Expectation>,
}

/// The expected results for one alert. Absent fields are not compared.
#[derive(Debug, Deserialize)]
struct Expectation {
    /// The recorded case; absent if the run is the case.
    case: Option<String>,
    alert: String,
    verdict: Option<String>,
    /// The reason why there is no delivery; any verdict except `matched` is accepted.
    dropped: Option<String>,
    deliveries: Option<usize>,
    /// The outcomes that a delivery may have.
    outcomes: Option<Vec<String>>,
    /// The metadata of a planned delivery.
    metadata: Option<BTreeMap<String, String>>,
    /// The URL of the planned POST; null: there is none.
    #[serde(default, deserialize_with = "present")]
    url: Option<Option<String>>,
    /// Values in the body of the planned POST, by JSON pointer; there must be one.
    body: Option<BTreeMap<String, Value>>,
    /// The same, compared only if there is a POST.
    body_if_posted: Option<BTreeMap<String, Value>>,
}

/// Replays a file of `data/routing/`.
pub async fn replay(file: &str) {
    let mut report = Report::default();
    for run in load::<DryRun>(&format!("routing/{file}.json")) {
        match (&run.skip, run.input.missing_type()) {
            (Some(reason), _) => report.skip(reason),
            (None, Some(kind)) => {
                report.skip(&format!("the provider type {kind} is not supported"))
            }
            (None, None) => run.compare(&mut report).await,
        }
    }
    report.finish(file);
}

impl DryRun {
    async fn compare(self, report: &mut Report) {
        let run = Run::new(&self.input, &[], &[]).await;
        let mut cases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for expectation in &self.expect {
            let found = match &run.output {
                Ok(output) => expectation.problems(output),
                Err(problem) => vec![problem.clone()],
            };
            cases
                .entry(expectation.case.as_deref().unwrap_or(&self.name))
                .or_default()
                .extend(found);
        }
        for (case, mut problems) in cases {
            if !problems.is_empty() && self.expect.len() < 10 {
                problems.extend(run.details());
            }
            report.add(case, &problems);
        }
        if self.expect.is_empty() {
            report.add(
                &self.name,
                &run.output.err().into_iter().collect::<Vec<_>>(),
            );
        }
    }
}

impl Expectation {
    fn problems(&self, output: &Output) -> Vec<String> {
        let verdict = output
            .alerts
            .iter()
            .find(|alert| alert.alert == self.alert)
            .map(|alert| alert.verdict.as_str());
        let deliveries: Vec<_> = output
            .deliveries
            .iter()
            .filter(|delivery| delivery.alert == self.alert)
            .collect();
        if let Some(reason) = &self.dropped {
            return self.dropped_problems(reason, verdict, &deliveries);
        }
        let mut problems = Vec::new();
        let mut add = |problem: Option<String>| {
            problems.extend(problem.map(|problem| format!("{}: {problem}", self.alert)))
        };
        if let Some(wanted) = &self.verdict {
            add(expect_equal("verdict", &Some(wanted.as_str()), &verdict));
        }
        if let Some(wanted) = self.deliveries {
            add(expect_equal("deliveries", &wanted, &deliveries.len()));
        }
        for delivery in &deliveries {
            add(self.delivery_problem(delivery));
        }
        let posted = deliveries.first().and_then(|delivery| Posted::of(delivery));
        if let Some(wanted) = &self.url {
            let got = posted.as_ref().map(|posted| &posted.url);
            add((!is_same_url(wanted.as_deref(), got))
                .then(|| format!("URL: expected {wanted:?}, got {:?}", got.map(Url::as_str))));
        }
        for (pointer, value) in self
            .body
            .iter()
            .chain(self.body_if_posted.iter().filter(|_| posted.is_some()))
            .flatten()
        {
            let got = posted
                .as_ref()
                .and_then(|posted| posted.body.pointer(pointer))
                .cloned();
            add(expect_equal(
                &format!("body {pointer}"),
                &Some(value.clone()),
                &got,
            ));
        }
        problems
    }

    /// An invalid Provider or Secret may cause a verdict or an invalid delivery.
    fn dropped_problems(
        &self,
        reason: &str,
        verdict: Option<&str>,
        deliveries: &[&Delivery],
    ) -> Vec<String> {
        let is_invalid =
            |delivery: &&Delivery| delivery.outcome == "invalid" || delivery.outcome == "failed";
        if reason == "error" && deliveries.first().is_some_and(is_invalid) {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if !deliveries.is_empty() {
            problems.push(format!("{}: expected no delivery ({reason})", self.alert));
        }
        if verdict.is_none_or(|verdict| verdict == "matched") {
            problems.push(format!(
                "{}: expected a verdict with the reason ({reason}), got {verdict:?}",
                self.alert
            ));
        }
        problems
    }

    fn delivery_problem(&self, delivery: &Delivery) -> Option<String> {
        if self
            .outcomes
            .as_ref()
            .is_some_and(|outcomes| !outcomes.contains(&delivery.outcome))
        {
            return Some(format!(
                "outcome: expected one of {:?}, got {:?}",
                self.outcomes, delivery.outcome
            ));
        }
        let metadata = self
            .metadata
            .as_ref()
            .filter(|_| delivery.outcome == "planned")?;
        expect_equal("metadata", metadata, &delivery.metadata)
    }
}

/// The POST of a planned delivery.
struct Posted {
    url: Url,
    body: Value,
}

impl Posted {
    fn of(delivery: &Delivery) -> Option<Self> {
        let request = delivery
            .requests
            .iter()
            .find(|request| request.method == "POST")?;
        let body = match &request.body {
            Value::String(text) => serde_json::from_str(text).ok()?,
            body => body.clone(),
        };
        Some(Self {
            url: Url::parse(&request.url).ok()?,
            body,
        })
    }
}

/// Ignores default ports, the case of the host, and the encoding of the path.
fn is_same_url(wanted: Option<&str>, got: Option<&Url>) -> bool {
    match (wanted, got) {
        (None, None) => true,
        (Some(wanted), Some(got)) => Url::parse(wanted).is_ok_and(|wanted| {
            let decoded = |url: &Url| url.path().replace("%2F", "/").replace("%2f", "/");
            wanted.origin() == got.origin() && is_same_path(&decoded(&wanted), &decoded(got))
        }),
        _ => false,
    }
}
