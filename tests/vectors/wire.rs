//! The requests of each provider type.

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::case::{WireCase, is_supported_type, load};
use crate::compare::Comparison;
use crate::report::{Report, expect_equal};
use crate::run::Run;
use crate::sink::{AUTHORITY, Received, Sink};

/// Replays the cases of a provider type.
pub async fn replay(kind: &str) {
    if !is_supported_type(kind) {
        println!("{kind}: skipped all: the provider type is not supported");
        return;
    }
    let sink = Sink::start().await;
    let mut report = Report::default();
    for case in load::<WireCase>(&format!("providers/{kind}.json")) {
        match &case.skip {
            Some(reason) => report.skip(reason),
            None => {
                let name = case.name.clone();
                report.add(&name, &problems(case, &sink).await);
            }
        }
    }
    report.finish(kind);
}

async fn problems(mut case: WireCase, sink: &Sink) -> Vec<String> {
    case.input
        .rules
        .iter_mut()
        .for_each(|object| fill(object, &sink.named));
    sink.reset(&case.server);
    let run = Run::new(&case.input, &["--send"], &environment(sink)).await;

    let (tunnels, requests): (Vec<_>, Vec<_>) = sink
        .requests()
        .into_iter()
        .partition(|request| request.method == "CONNECT");
    let mut problems = compare_requests(&case, &requests);
    problems.extend(compare_tunnels(&case, &tunnels));
    problems.extend(compare_outcome(&case, &run));
    problems.extend(expect_equal("exit status", &case.exit, &run.status));
    if !problems.is_empty() {
        problems.extend(run.details());
        problems.extend(sink.errors());
    }
    problems
}

/// The environment variables that send all requests to the sink.
pub fn environment(sink: &Sink) -> Vec<(&'static str, String)> {
    let certificates = [
        ("SSL_CERT_FILE", AUTHORITY.file().display().to_string()),
        (
            "SSL_CERT_DIR",
            AUTHORITY.missing_folder().display().to_string(),
        ),
    ];
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]
        .map(|name| (name, sink.environment.clone()));
    certificates.into_iter().chain(proxies).collect()
}

/// Differences between the recorded requests and those that were made.
pub fn compare_requests(case: &WireCase, got: &[Received]) -> Vec<String> {
    let mut comparison = Comparison::new(&case.loose);
    for (number, (expected, got)) in case.requests.iter().zip(got).enumerate() {
        let signature = case
            .signature_key
            .as_ref()
            .map(|key| signature(key, &got.body));
        comparison.request(expected, got, number, signature.as_deref());
    }
    let mut problems = comparison.problems;
    for missing in case.requests.iter().skip(got.len()) {
        problems.push(format!(
            "missing: {} {}://{}{}",
            missing.method, missing.scheme, missing.host, missing.path
        ));
    }
    for extra in got.iter().skip(case.requests.len()) {
        problems.push(format!(
            "not expected: {} {}://{}{}",
            extra.method, extra.scheme, extra.host, extra.path
        ));
    }
    problems
}

/// Compares hosts and credentials only: the number of tunnels depends on the reuse of connections.
pub fn compare_tunnels(case: &WireCase, got: &[Received]) -> Option<String> {
    let credentials = |tunnel: &Received| tunnel.header("proxy-authorization").join(", ");
    let opened: BTreeSet<_> = got
        .iter()
        .map(|tunnel| (tunnel.host.clone(), credentials(tunnel)))
        .collect();
    let wanted: BTreeSet<_> = case.tunnels.iter().cloned().collect();
    if wanted.is_empty() {
        None
    } else {
        expect_equal("tunnels (host, credentials)", &wanted, &opened)
    }
}

fn compare_outcome(case: &WireCase, run: &Run) -> Option<String> {
    match (&run.output, &case.outcomes) {
        (Err(problem), _) => (case.exit != 2).then(|| problem.clone()),
        (Ok(output), Some(allowed)) => {
            let outcomes: BTreeSet<_> = output
                .deliveries
                .iter()
                .map(|delivery| &delivery.outcome)
                .collect();
            let fits = outcomes.iter().all(|outcome| allowed.contains(outcome))
                && (!outcomes.is_empty() || case.requests.is_empty());
            (!fits).then(|| format!("outcome: expected one of {allowed:?}, got {outcomes:?}"))
        }
        (Ok(_), None) => None,
    }
}

fn signature(key: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Fills the placeholders in all texts of an object.
pub fn fill(value: &mut Value, proxy: &str) {
    match value {
        Value::String(text) if text.contains("{{") => {
            *text = AUTHORITY.fill(&text.replace("{{proxy}}", proxy))
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, proxy)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, proxy)),
        _ => {}
    }
}
