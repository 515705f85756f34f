//! The output of `tidings test`. Scripts read the JSON, so its keys and values must not change.

use std::collections::BTreeMap;
use std::io;

use reqwest::header::{HeaderName, HeaderValue};
use serde::Serialize;
use tidings_core::model::flux;
use tidings_core::model::metadata::of_delivery;
use tidings_core::{Delivery, Event};
use tidings_router::AlertExplanation;
use tidings_rules::Problem;
use tidings_workers::attempt::Prepared;
use tidings_workers::http::Request;

use crate::command::rules::ProblemReport;
use crate::command::tool::print_line;

#[derive(Serialize)]
pub struct Report {
    event: serde_json::Value,
    alerts: Vec<AlertReport>,
    deliveries: Vec<DeliveryReport>,
    problems: Vec<ProblemReport>,
}

#[derive(Serialize)]
struct AlertReport {
    alert: String,
    verdict: &'static str,
    reason: String,
}

#[derive(Serialize)]
pub struct DeliveryReport {
    pub alert: String,
    pub provider: String,
    pub r#type: String,
    metadata: BTreeMap<String, String>,
    pub outcome: &'static str,
    pub requests: Vec<RequestReport>,
    pub detail: String,
    /// Empty if there is no template or it succeeded.
    pub template_error: String,
}

#[derive(Serialize)]
pub struct RequestReport {
    pub method: String,
    url: String,
    headers: BTreeMap<String, String>,
    pub body: String,
}

impl Report {
    pub fn new(
        event: &Event,
        explanations: Vec<AlertExplanation>,
        deliveries: Vec<DeliveryReport>,
        problems: &[Problem],
    ) -> Self {
        let alerts = explanations.into_iter().map(|explanation| AlertReport {
            alert: explanation.alert,
            verdict: explanation.verdict.as_str(),
            reason: explanation.detail,
        });
        Self {
            event: stored_event(event),
            alerts: alerts.collect(),
            deliveries,
            problems: problems.iter().map(ProblemReport::new).collect(),
        }
    }

    /// Whether a rule is rejected, or a delivery failed or is invalid.
    pub fn has_failure(&self) -> bool {
        let is_rejected = |problem: &ProblemReport| problem.rejects;
        let is_failed =
            |delivery: &DeliveryReport| matches!(delivery.outcome, "failed" | "invalid");
        self.problems.iter().any(is_rejected) || self.deliveries.iter().any(is_failed)
    }

    /// Prints the report for people. `sent` says whether deliveries were attempted.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self, sent: bool) -> io::Result<()> {
        for line in self.lines(sent) {
            if !print_line(&line)? {
                break;
            }
        }
        Ok(())
    }

    fn lines(&self, sent: bool) -> Vec<String> {
        let object = &self.event["involvedObject"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let event = format!(
            "{} {}/{}: {}",
            text(&object["kind"]),
            text(&object["namespace"]),
            text(&object["name"]),
            text(&self.event["message"])
        );
        let mut lines = vec![event, String::new()];
        if self.alerts.is_empty() {
            lines.push("No Alert found in these rules.".to_owned());
        }
        for alert in &self.alerts {
            lines.push(format!(
                "Alert {}: {}: {}",
                alert.alert, alert.verdict, alert.reason
            ));
        }
        let deliveries = self.deliveries.iter();
        lines.extend(deliveries.flat_map(DeliveryReport::lines));
        if !sent
            && self
                .deliveries
                .iter()
                .any(|delivery| delivery.outcome == "planned")
        {
            let hint = "Nothing was sent; pass --send to send the messages.";
            lines.extend([String::new(), hint.to_owned()]);
        }
        lines
    }
}

/// The event as it would be stored: metadata keys keep their prefixes.
fn stored_event(event: &Event) -> serde_json::Value {
    let mut value = flux::to_value(event, &event.metadata.clone().into_iter().collect());
    value["cluster"] = event.cluster.clone().into();
    value["id"] = event.id.clone().into();
    value["dedupeKey"] = event.dedupe_key.clone().into();
    value
}

impl DeliveryReport {
    /// A delivery that has not been attempted.
    pub fn new(alert: &str, delivery: &Delivery, event: &Event) -> Self {
        let provider = delivery.provider.clone().unwrap_or_default();
        Self {
            alert: alert.to_owned(),
            provider: format!("{}/{}", provider.namespace, provider.name),
            r#type: provider.r#type,
            metadata: of_delivery(delivery, event).into_owned(),
            outcome: "invalid",
            requests: Vec::new(),
            detail: String::new(),
            template_error: String::new(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let colon = if self.detail.is_empty() { "" } else { ": " };
        let outcome = format!(
            "Delivery of {} to {} ({}): {}{colon}{}",
            self.alert, self.provider, self.r#type, self.outcome, self.detail
        );
        let mut lines = vec![String::new(), outcome];
        if !self.template_error.is_empty() {
            lines.push(format!(
                "  The template failed and the standard text is used: {}",
                self.template_error
            ));
        }
        for request in &self.requests {
            lines.push(format!("  {} {}", request.method, request.url));
            let headers = request.headers.iter();
            lines.extend(headers.map(|(name, value)| format!("  {name}: {value}")));
            lines.push(format!("  {}", request.body));
        }
        lines
    }
}

impl RequestReport {
    /// A request without the secrets of its Provider.
    pub fn new(request: &Request, prepared: &Prepared) -> Self {
        let redactor = prepared.redactor.with_secrets(&request.secrets);
        let redact = |text: &str| redactor.redact(text);
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = if value.is_sensitive() {
                "[redacted]".to_owned()
            } else {
                redact(&String::from_utf8_lossy(value.as_bytes()))
            };
            (name.to_string(), value)
        };
        Self {
            method: request.method.to_string(),
            url: redact(request.url.as_str()),
            headers: request.headers.iter().map(header).collect(),
            body: redact(&String::from_utf8_lossy(&request.body)),
        }
    }
}
