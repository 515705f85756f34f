//! Prepares each delivery, and attempts it once or only records its requests.

use std::sync::Arc;

use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::config::Settings;
use tidings_core::{Delivery, Event, Failure, Outcome, Reason};
use tidings_router::AlertExplanation;
use tidings_rules::{ResolvedProvider, Rules};
use tidings_workers::attempt::Ended;
use tidings_workers::http::{Http, HttpClients};
use tidings_workers::message::render::Renderer;
use tidings_workers::worker::with_rules::{attempt_with_rules, prepare_for};

use super::report::{DeliveryReport, RequestReport};

/// Prepares deliveries as a worker does.
pub struct Tester {
    http_clients: HttpClients,
    renderer: Renderer,
}

impl Tester {
    /// # Errors
    /// A link template cannot be used.
    pub fn new(
        http_clients: HttpClients,
        settings: &Settings,
        clusters: Arc<LiveClusters>,
    ) -> anyhow::Result<Self> {
        let renderer = Renderer::new(&settings.links).map_err(anyhow::Error::msg)?;
        let renderer = renderer.with_clusters(clusters);
        Ok(Self {
            http_clients,
            renderer,
        })
    }

    /// Prepares every planned delivery and reports the result; see [`Tester::deliver`].
    pub async fn deliver_all(
        &self,
        explanations: &[AlertExplanation],
        event: &Event,
        rules: &Rules,
        send: bool,
    ) -> Vec<DeliveryReport> {
        let mut reports = Vec::new();
        for explanation in explanations {
            if let Some(delivery) = &explanation.delivery {
                let report = self.deliver(&explanation.alert, delivery, event, rules, send);
                reports.push(report.await);
            }
        }
        reports
    }

    /// Prepares a delivery and reports the result. With `send` it is attempted once; otherwise its
    /// requests are only recorded, and nothing leaves the process.
    pub async fn deliver(
        &self,
        alert: &str,
        delivery: &Delivery,
        event: &Event,
        rules: &Rules,
        send: bool,
    ) -> DeliveryReport {
        let mut report = DeliveryReport::new(alert, delivery, event);
        let recorder = Http::dry_run();
        let http = |provider: &ResolvedProvider| {
            let wire = Http::new(provider, &self.http_clients)?;
            Ok(if send { wire } else { recorder.clone() })
        };
        match prepare_for(rules, delivery, http) {
            Err(failure) => report.detail = failure.detail,
            Ok(prepared) => {
                let attempt =
                    attempt_with_rules(&prepared, delivery, event, rules, &self.renderer).await;
                report.template_error = attempt.template_error;
                (report.outcome, report.detail) = outcome(attempt.result, send);
                let requests = recorder.recorded();
                let addresses = self.http_clients.rules();
                let refused = requests
                    .iter()
                    .find_map(|request| addresses.check_url(&request.url).err());
                if let Some(refused) = refused {
                    (report.outcome, report.detail) = ("invalid", refused.to_string());
                }
                report.requests = requests
                    .iter()
                    .map(|request| RequestReport::new(request, &prepared))
                    .collect();
            }
        }
        report
    }
}

fn outcome(result: Result<Ended, Failure>, send: bool) -> (&'static str, String) {
    match result {
        Ok(ended) if !send && ended.outcome == Outcome::Delivered => ("planned", String::new()),
        Ok(ended) if ended.detail.is_empty() => {
            let status = ended.status.map(|status| format!("answered {status}"));
            (ended.outcome.as_str(), status.unwrap_or_default())
        }
        Ok(ended) => (ended.outcome.as_str(), ended.detail),
        Err(failure) if failure.reason == Reason::Misconfigured => ("invalid", failure.detail),
        Err(failure) => ("failed", failure.to_string()),
    }
}
