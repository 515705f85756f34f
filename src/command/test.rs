//! `tidings test`: takes one event through ingest's normalisation, all rules and one attempt for
//! each delivery, without a server, and says of every alert what it makes of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tidings_core::model::flux;
use tidings_core::runtime::config::{AddressSettings, LinksSettings};
use tidings_core::{Event, Failure, ObjectLabels, Reason, object_labels};
use tidings_router::{Explanation, Planning, Verdict, explain};
use tidings_rules::{Options, ResolvedProvider, Rules, Unresolved, folder};
use tidings_workers::attempt::{Ended, Prepared, attempt_once, prepare};
use tidings_workers::http::{Http, HttpClients, Request};
use tidings_workers::message::Message;
use tidings_workers::message::render::Renderer;
use tidings_workers::worker::notification;
use tidings_workers::worker::providers;

use super::Output;

/// Nothing failed.
const FINE: u8 = 0;
/// A delivery failed or is invalid, or an Alert's reference is refused.
const FAILED: u8 = 1;

/// What `tidings test` takes.
#[derive(Args, Debug)]
pub struct TestArguments {
    /// The folder of rules
    #[arg(long, value_name = "DIR")]
    rules: PathBuf,
    /// The event as JSON, as Flux's controllers post it: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Show the requests instead of making them; secrets are redacted
    #[arg(long)]
    dry_run: bool,
    /// Labels of the involved object, k=v,…; none: there is no such object. Without this they
    /// count as unknown
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,
    /// The cluster that the event is from
    #[arg(long, default_value = "default")]
    cluster: String,
    /// Refuse events from other namespaces than the Alert's, as Flux's flag of this name does
    #[arg(long)]
    no_cross_namespace_refs: bool,
    /// Links in messages, as the setting links.enabled
    #[arg(long)]
    links: bool,
    /// A pattern for the address of a commit
    #[arg(long, value_name = "PATTERN")]
    commit_link: Option<String>,
    /// A pattern for the address of a dashboard
    #[arg(long, value_name = "PATTERN")]
    dashboard_link: Option<String>,
    /// A pattern for the address that commit statuses link to
    #[arg(long, value_name = "PATTERN")]
    commit_status_link: Option<String>,
    /// The form of the output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl TestArguments {
    /// The settings `links.…` that it stands for.
    fn links(&self) -> LinksSettings {
        LinksSettings {
            enabled: self.links,
            commit: self.commit_link.clone(),
            dashboard: self.dashboard_link.clone(),
            commit_status: self.commit_status_link.clone(),
        }
    }
}

#[derive(Serialize)]
struct Report {
    event: serde_json::Value,
    alerts: Vec<AlertReport>,
    deliveries: Vec<DeliveryReport>,
}

#[derive(Serialize)]
struct AlertReport {
    alert: String,
    verdict: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct DeliveryReport {
    alert: String,
    provider: String,
    r#type: String,
    metadata: BTreeMap<String, String>,
    outcome: &'static str,
    requests: Vec<RequestReport>,
    detail: String,
    /// Empty where there is no template, or it can be used.
    template_error: String,
}

#[derive(Serialize)]
struct RequestReport {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Runs the command; the number is its exit status.
///
/// # Errors
/// The event or the rules can't be read: exit status 2.
pub async fn run(arguments: TestArguments) -> anyhow::Result<u8> {
    let event = read_event(&arguments)?;
    let options = Options {
        no_cross_namespace_refs: arguments.no_cross_namespace_refs,
        ..Options::default()
    };
    let rules = folder::load(
        &arguments.rules,
        tidings_workers::notifier::kinds(),
        &options,
    );
    let rules = rules.map_err(|problem| anyhow::anyhow!("{problem}"))?;
    for problem in rules.problems() {
        eprintln!("{problem}");
    }
    let explanations = explain(&rules, &event, Planning::default());
    let deliveries = deliver_all(&arguments, &rules, &event, &explanations).await?;
    let alerts = explanations.into_iter().map(
        |Explanation {
             alert,
             verdict,
             sentence,
             ..
         }| AlertReport {
            alert,
            verdict: verdict.as_str(),
            reason: sentence,
        },
    );
    let report = Report {
        event: shown(&event),
        alerts: alerts.collect(),
        deliveries,
    };
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&report)?),
        Output::Text => print_text(&report),
    }
    // An Alert whose reference is refused is a mistake of its author, as in Flux, not a rule that
    // happens not to match.
    let refused = report
        .alerts
        .iter()
        .any(|alert| alert.verdict == Verdict::CrossNamespaceRefused.as_str());
    let failed = refused
        || report
            .deliveries
            .iter()
            .any(|delivery| matches!(delivery.outcome, "failed" | "invalid"));
    Ok(if failed { FAILED } else { FINE })
}

fn read_event(arguments: &TestArguments) -> anyhow::Result<Event> {
    let mut bytes = Vec::new();
    if arguments.event == Path::new("-") {
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read the event from standard input")?;
    } else {
        bytes = std::fs::read(&arguments.event)
            .with_context(|| format!("cannot read the event {}", arguments.event.display()))?;
    }
    let labels = arguments.labels.as_deref().map(labels).transpose()?;
    tidings_ingest::take(&bytes, &arguments.cluster, jiff::Timestamp::now(), labels)
        .context("the event is refused")
}

fn labels(text: &str) -> anyhow::Result<ObjectLabels> {
    if text == "none" {
        return Ok(ObjectLabels {
            state: object_labels::State::Absent.into(),
            ..ObjectLabels::default()
        });
    }
    let pair = |pair: &str| {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("--labels: {pair:?} is not of the form key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let labels = text
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect::<anyhow::Result<_>>()?;
    Ok(ObjectLabels {
        state: object_labels::State::Known.into(),
        labels,
    })
}

async fn deliver_all(
    arguments: &TestArguments,
    rules: &Rules,
    event: &Event,
    explanations: &[Explanation],
) -> anyhow::Result<Vec<DeliveryReport>> {
    let http_clients = HttpClients::new(AddressSettings::default())
        .context("cannot read the system's certificates")?;
    let renderer = Renderer::new(&arguments.links()).map_err(anyhow::Error::msg)?;
    let mut reports = Vec::new();
    for explanation in explanations {
        let Some(delivery) = &explanation.delivery else {
            continue;
        };
        let reference = delivery.provider.clone().unwrap_or_default();
        let mut report = DeliveryReport {
            alert: explanation.alert.clone(),
            provider: format!("{}/{}", reference.namespace, reference.name),
            r#type: reference.r#type.clone(),
            metadata: delivery.metadata.clone(),
            outcome: "invalid",
            requests: Vec::new(),
            detail: String::new(),
            template_error: String::new(),
        };
        let dry = Http::dry_run();
        let http = |provider: &ResolvedProvider| {
            if arguments.dry_run {
                Ok(dry.clone())
            } else {
                Http::new(provider, &http_clients)
            }
        };
        match ready(rules, &reference.namespace, &reference.name, http) {
            Err(why) => report.detail = why,
            Ok(prepared) => {
                let object = event.involved_object.clone().unwrap_or_default();
                let alert = delivery.alert.clone().unwrap_or_default();
                let told = notification(delivery, event, &object, &alert, &prepared);
                let rendered = renderer.rendered(&told, &prepared.provider, prepared.provider_type.content, || {
                    providers::template(rules, delivery)
                });
                let result = attempt_once(
                    &prepared,
                    &Message {
                        rendered: &rendered,
                        ..told
                    },
                )
                .await;
                report.template_error = rendered.template_error;
                (report.outcome, report.detail) = outcome(result, arguments.dry_run);
                report.requests = dry
                    .recorded()
                    .iter()
                    .map(|request| show(request, &prepared))
                    .collect();
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

fn ready(
    rules: &Rules,
    namespace: &str,
    name: &str,
    http: impl FnOnce(&ResolvedProvider) -> Result<Http, tidings_workers::http::invalid::Invalid>,
) -> Result<Prepared, String> {
    let provider: Arc<ResolvedProvider> = rules
        .resolve(namespace, name)
        .map_err(|unresolved: Unresolved| unresolved.to_string())?;
    prepare(provider, http).map_err(|invalid| format!("Provider {namespace}/{name}: {invalid}"))
}

fn outcome(result: Result<Ended, Failure>, dry_run: bool) -> (&'static str, String) {
    match result {
        Ok(ended) if dry_run && ended.outcome == tidings_core::Outcome::Delivered => {
            ("planned", String::new())
        }
        Ok(Ended {
            outcome,
            status,
            detail,
        }) => {
            let status = status
                .map(|status| format!("answered {status}"))
                .unwrap_or_default();
            (
                outcome.as_str(),
                if detail.is_empty() { status } else { detail },
            )
        }
        Err(failure) if failure.reason == Reason::Misconfigured => ("invalid", failure.detail),
        Err(failure) => ("failed", failure.to_string()),
    }
}

fn show(request: &Request, prepared: &Prepared) -> RequestReport {
    let redact = |text: &str| prepared.redactor.redact(text);
    let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        let shown = if value.is_sensitive() {
            "[redacted]".to_owned()
        } else {
            redact(&String::from_utf8_lossy(value.as_bytes()))
        };
        (name.to_string(), shown)
    };
    RequestReport {
        method: request.method.to_string(),
        url: redact(request.url.as_str()),
        headers: request.headers.iter().map(header).collect(),
        body: redact(&String::from_utf8_lossy(&request.body)),
    }
}

/// The event as it would be stored: metadata keys keep their prefixes.
fn shown(event: &Event) -> serde_json::Value {
    let mut value = flux::to_value(event, &event.metadata.clone().into_iter().collect());
    value["cluster"] = event.cluster.clone().into();
    value["id"] = event.id.clone().into();
    value["dedupeKey"] = event.dedupe_key.clone().into();
    value
}

fn print_text(report: &Report) {
    let object = &report.event["involvedObject"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    println!(
        "{} {}/{}: {}",
        text(&object["kind"]),
        text(&object["namespace"]),
        text(&object["name"]),
        text(&report.event["message"])
    );
    println!();
    if report.alerts.is_empty() {
        println!("There is no Alert in these rules.");
    }
    for AlertReport {
        alert,
        verdict,
        reason,
    } in &report.alerts
    {
        println!("Alert {alert}: {verdict}: {reason}");
    }
    for delivery in &report.deliveries {
        let colon = if delivery.detail.is_empty() { "" } else { ": " };
        println!();
        println!(
            "Delivery of {} to {} ({}): {}{colon}{}",
            delivery.alert, delivery.provider, delivery.r#type, delivery.outcome, delivery.detail
        );
        if !delivery.template_error.is_empty() {
            println!(
                "  The template can't be used, so this is the standard form: {}",
                delivery.template_error
            );
        }
        for request in &delivery.requests {
            println!("  {} {}", request.method, request.url);
            for (name, value) in &request.headers {
                println!("  {name}: {value}");
            }
            println!("  {}", request.body);
        }
    }
}
