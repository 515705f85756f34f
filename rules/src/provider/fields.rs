//! The values of the fields of a Provider. Each problem goes to the report.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::model::nearest::instead;
use tidings_core::model::object_state::{ObjectState, ReasonStates};
use tidings_core::model::retry::RetryPolicy;
use url::Url;

use super::{CommitStatusOptions, DEFAULT_POOL, DEFAULT_TIMEOUT, MAX_TIMEOUT};
use crate::duration;
use crate::kind::{self, Family, Kind, Kinds};
use crate::report::Report;
use crate::resource::{CommitStatusSpec, ProviderSpec, RetrySpec, Version};
use crate::template::{Escape, Program};

pub(super) fn check_strings(spec: &ProviderSpec, version: Version, report: &mut Report<'_>) {
    for (field, text) in [
        ("spec.address", &spec.address),
        ("spec.apiAddress", &spec.api_address),
        ("spec.channel", &spec.channel),
        ("spec.username", &spec.username),
        ("spec.proxy", &spec.proxy),
    ] {
        report.at_most(field, text.as_deref(), 2048);
    }
    let is_http = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    if spec.proxy.as_deref().is_some_and(|proxy| !is_http(proxy)) {
        report.error("spec.proxy", "must start with http:// or https://");
    }
    if version == Version::V1beta1
        && spec
            .address
            .as_deref()
            .is_some_and(|address| !is_http(address))
    {
        report.error(
            "spec.address",
            "must start with http:// or https:// in v1beta1; use v1beta3 for other addresses",
        );
    }
    if let Some(interval) = &spec.interval {
        valid_or_report(
            units(interval, &["ms", "s", "m", "h"]),
            "spec.interval",
            report,
        );
    }
}

/// The URL of a forge's API. The errors do not quote it, since it may contain a secret by mistake.
pub(super) fn api_address(text: &str, kind: Kind, report: &mut Report<'_>) -> Option<Url> {
    const FIELD: &str = "spec.apiAddress";
    if text.is_empty() {
        return None;
    }
    if !kind.fields.contains(&"apiAddress") {
        let message = format!(
            "is not supported by type {}, which has no API of a Git forge; remove it",
            kind.name
        );
        report.error(FIELD, message);
    }
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let url = Url::parse(text)
        .ok()
        .filter(|url| is_http && !text.contains(char::is_whitespace) && url.has_host());
    let Some(url) = url else {
        report.error(
            FIELD,
            "must be an http or https URL, such as https://HOST/gitlab",
        );
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        report.error(
            FIELD,
            "must not contain credentials; put them in the Secret of spec.secretRef",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        report.error(FIELD, "must not contain ? or #; remove what follows");
    }
    Some(url)
}

/// The type. Instead of an unknown one, a type that supports every field, so that the problems of
/// other fields are found too.
pub(super) fn supported_kind(spec: &ProviderSpec, kinds: Kinds, report: &mut Report<'_>) -> Kind {
    kind::find(kinds, &spec.kind).unwrap_or_else(|| {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        let fix = instead(&spec.kind, &names);
        report.error(
            "spec.type",
            format!("\"{}\" is not supported; {fix}", spec.kind),
        );
        Kind {
            fields: &["apiAddress", "clusterField"],
            ..Kind::new("", Family::CommitStatus)
        }
    })
}

/// Like the CRD, accepts only ms, s and m. `0s` means the default, because no attempt could
/// succeed.
pub(super) fn timeout(text: Option<&str>, report: &mut Report<'_>) -> Duration {
    let timeout = text
        .and_then(|text| valid_or_report(units(text, &["ms", "s", "m"]), "spec.timeout", report));
    let timeout = timeout
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or(DEFAULT_TIMEOUT);
    if timeout > MAX_TIMEOUT {
        let message = "is longer than 5m, and 5m is used; an attempt holds memory meanwhile";
        report.warn("spec.timeout", message);
    }
    timeout.min(MAX_TIMEOUT)
}

/// Parses a duration that uses only the given units.
fn units(text: &str, units: &[&str]) -> Result<Duration, String> {
    let mut parts = text
        .split(|letter: char| letter.is_ascii_digit() || letter == '.')
        .filter(|part| !part.is_empty());
    if !parts.all(|part| units.contains(&part)) {
        return Err(format!(
            "\"{text}\" is not a duration; use a number with a unit ({}), such as 10s",
            units.join(", ")
        ));
    }
    duration::parse(text)
}

pub(super) fn expression(
    expression: Option<String>,
    kind: Kind,
    report: &mut Report<'_>,
) -> Option<String> {
    let expression = expression.filter(|expression| !expression.trim().is_empty())?;
    if kind.family != Family::CommitStatus {
        report.error(
            "spec.commitStatusExpr",
            format!(
                "is not supported by type {}, which writes no commit statuses; remove it",
                kind.name
            ),
        );
    }
    Some(expression)
}

pub(super) fn commit_status(
    spec: Option<CommitStatusSpec>,
    expression: Option<&str>,
    kind: Kind,
    report: &mut Report<'_>,
) -> CommitStatusOptions {
    let Some(spec) = spec else {
        return CommitStatusOptions::default();
    };
    if kind.family != Family::CommitStatus {
        report.error(
            "spec.commitStatus",
            format!(
                "is not supported by type {}, which writes no commit statuses; remove it",
                kind.name
            ),
        );
    }
    let qualified_id = match spec.id.as_deref() {
        None | Some("default") => false,
        Some("qualified") if expression.is_some_and(|expression| !expression.trim().is_empty()) => {
            report.error(
                "spec.commitStatus.id",
                "must be default if spec.commitStatusExpr is set; remove one of them",
            );
            false
        }
        Some("qualified") => true,
        Some(other) => {
            report.error(
                "spec.commitStatus.id",
                format!("\"{other}\" is not supported; use default or qualified"),
            );
            false
        }
    };
    report.at_most(
        "spec.commitStatus.targetURL",
        spec.target_url.as_deref(),
        2048,
    );
    let target_url =
        spec.target_url
            .filter(|pattern| match Program::compile(pattern, Escape::Url) {
                Ok(_) => true,
                Err(message) => {
                    report.fault(
                        "spec.commitStatus.targetURL",
                        format!("{message}; commit statuses are sent without a link"),
                    );
                    false
                }
            });
    CommitStatusOptions {
        qualified_id,
        pending: spec.pending.unwrap_or_default(),
        target_url,
    }
}

pub(super) fn reason_states(
    spec: BTreeMap<String, String>,
    kind: Kind,
    report: &mut Report<'_>,
) -> ReasonStates {
    if !spec.is_empty() && !kind.family.writes_states() {
        report.error(
            "spec.reasonStates",
            format!(
                "is not supported by type {}, which writes neither commit statuses nor incidents; \
                 remove it",
                kind.name
            ),
        );
    }
    let mut states = ReasonStates::new();
    for (reason, name) in spec {
        match ObjectState::parse(&name) {
            Some(state) => drop(states.insert(reason, state)),
            None => report.error(
                &format!("spec.reasonStates.{reason}"),
                format!(
                    "\"{name}\" is not a state; use one of {}",
                    ObjectState::ALL.map(ObjectState::as_str).join(", ")
                ),
            ),
        }
    }
    states
}

pub(super) fn cluster_field(field: Option<bool>, kind: Kind, report: &mut Report<'_>) -> bool {
    let field = field.unwrap_or_default();
    if field && !kind.fields.contains(&"clusterField") {
        let message = format!(
            "is not supported by type {}, which names the cluster in every message; remove it",
            kind.name
        );
        report.error("spec.clusterField", message);
    }
    field
}

pub(super) fn max_in_flight(number: i64, report: &mut Report<'_>) -> Option<u32> {
    let number = u32::try_from(number)
        .ok()
        .filter(|number| (1..=1000).contains(number));
    if number.is_none() {
        report.error("spec.maxInFlight", "must be between 1 and 1000");
    }
    number
}

pub(super) fn retry(spec: Option<RetrySpec>, report: &mut Report<'_>) -> RetryPolicy {
    let spec = spec.unwrap_or_default();
    let default = RetryPolicy::default();
    let mut bound = |field: &str, text: Option<String>, default: Duration| {
        let duration = text.and_then(|text| valid_or_report(duration::parse(&text), field, report));
        if duration.is_some_and(|duration| duration.is_zero()) {
            report.error(field, "must be greater than 0");
        }
        duration.unwrap_or(default)
    };
    let max_age = bound("spec.retry.maxAge", spec.max_age, default.max_age);
    let min = bound("spec.retry.min", spec.min, default.min);
    let max = bound("spec.retry.max", spec.max, default.max.max(min));
    if min > max {
        report.error(
            "spec.retry.min",
            "must be less than or equal to spec.retry.max",
        );
    }
    RetryPolicy { min, max, max_age }
}

pub(super) fn pool(pool: Option<String>, report: &mut Report<'_>) -> String {
    let pool = pool.unwrap_or_else(|| DEFAULT_POOL.to_owned());
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if pool.is_empty() || pool.len() > 63 || !pool.bytes().all(inner) {
        report.error(
            "spec.pool",
            "must have 1 to 63 lowercase letters, digits and dashes",
        );
    }
    pool
}

/// Returns the value, or adds the error to the report.
pub(super) fn valid_or_report<T>(
    result: Result<T, String>,
    field: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    result.map_err(|message| report.error(field, message)).ok()
}
