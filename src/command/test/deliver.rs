//! Prepares each delivery, and attempts it once or only records its requests.

use anyhow::Context as _;
use tidings_core::bus::clusters::Clusters;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::config::Settings;
use tidings_core::{Event, Failure, Outcome, Reason};
use tidings_router::AlertExplanation;
use tidings_rules::{ResolvedProvider, Rules};
use tidings_workers::attempt::Ended;
use tidings_workers::http::{Http, HttpClients};
use tidings_workers::message::render::Renderer;
use tidings_workers::worker::with_rules::{attempt_with_rules, prepare_for};

use super::report::{DeliveryReport, RequestReport};

/// Prepares every planned delivery and reports the result. With `send` each is attempted once;
/// otherwise its requests are only recorded.
///
/// # Errors
/// The system's certificates or a link template cannot be used.
pub async fn deliver_all(
    explanations: &[AlertExplanation],
    event: &Event,
    rules: &Rules,
    settings: &Settings,
    clusters: Clusters,
    send: bool,
) -> anyhow::Result<Vec<DeliveryReport>> {
    let http_clients = HttpClients::new(settings.worker.addresses.clone())
        .context("cannot read the system's CA certificates")?;
    let renderer = Renderer::new(&settings.links).map_err(anyhow::Error::msg)?;
    let renderer = renderer.with_clusters(LiveClusters::fixed(clusters));
    let mut reports = Vec::new();
    for explanation in explanations {
        let Some(delivery) = &explanation.delivery else {
            continue;
        };
        let mut report = DeliveryReport::new(&explanation.alert, delivery, event);
        let recorder = Http::dry_run();
        let http = |provider: &ResolvedProvider| {
            let wire = Http::new(provider, &http_clients)?;
            Ok(if send { wire } else { recorder.clone() })
        };
        match prepare_for(rules, delivery, http) {
            Err(failure) => report.detail = failure.detail,
            Ok(prepared) => {
                let attempt =
                    attempt_with_rules(&prepared, delivery, event, rules, &renderer).await;
                report.template_error = attempt.template_error;
                (report.outcome, report.detail) = outcome(attempt.result, send);
                let requests = recorder.recorded();
                let refused = requests
                    .iter()
                    .find_map(|request| http_clients.rules().check_url(&request.url).err());
                if let Some(refused) = refused {
                    (report.outcome, report.detail) = ("invalid", refused.to_string());
                }
                report.requests = requests
                    .iter()
                    .map(|request| RequestReport::new(request, &prepared))
                    .collect();
            }
        }
        reports.push(report);
    }
    Ok(reports)
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
