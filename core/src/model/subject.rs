//! The subjects of the four streams, and the names of what hangs on them.

use tidings_proto::v1::{Event, ProviderReference};

use crate::model::token::Token;

/// Every event, whatever cluster it comes from.
pub const ALL_EVENTS: &str = "events.>";
/// Every delivery that is ready for an attempt.
pub const ALL_DELIVERIES: &str = "deliveries.>";
/// Every delivery that waits for its next attempt.
pub const ALL_PARKED: &str = "parked.>";
/// Every outcome.
pub const ALL_OUTCOMES: &str = "outcomes.>";
/// Every dead letter.
pub const ALL_DEAD: &str = "dead.>";

/// Where ingest publishes an event: `events.<cluster>.<namespace>.<kind>.<severity>`.
pub fn event(event: &Event) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    let severity = severity_word(&event.severity);
    let [cluster, namespace, kind] =
        [&event.cluster, &object.namespace, &object.kind].map(|text| Token::new(text));
    format!("events.{cluster}.{namespace}.{kind}.{severity}")
}

/// The filter for events that agree with every given text.
pub fn event_filter(
    cluster: Option<&str>,
    namespace: Option<&str>,
    kind: Option<&str>,
    severity: Option<&str>,
) -> String {
    let part = |text: Option<&str>| {
        text.map_or_else(|| "*".to_owned(), |text| Token::new(text).to_string())
    };
    let severity = severity.map_or("*", severity_word);
    format!(
        "events.{}.{}.{}.{severity}",
        part(cluster),
        part(namespace),
        part(kind)
    )
}

/// The word that stands for a severity in subjects and metrics: trace, info, warn, error or other.
pub fn severity_word(severity: &str) -> &'static str {
    match severity {
        "trace" => "trace",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" => "error",
        _ => "other",
    }
}

/// Where a delivery is ready: `deliveries.<pool>.<type>.<namespace>.<provider>`.
pub fn delivery(provider: &ProviderReference) -> String {
    format!("deliveries.{}", destination(provider))
}

/// Where a delivery waits: `parked.<pool>.<type>.<namespace>.<provider>.<id>`. A second one there
/// replaces the first.
pub fn parked(provider: &ProviderReference, id: &str) -> String {
    format!("parked.{}.{}", destination(provider), Token::new(id))
}

/// What waits for a Provider, in whatever pool and under whatever type.
pub fn parked_filter(namespace: &str, provider: &str) -> String {
    format!(
        "parked.*.*.{}.{}.*",
        Token::new(namespace),
        Token::new(provider)
    )
}

/// Where an outcome is told: `outcomes.<type>.<namespace>.<provider>.<outcome>`.
pub fn outcome(provider: &ProviderReference, outcome: &str) -> String {
    format!("outcomes.{}.{outcome}", addressee(provider))
}

/// Where a dead letter is kept: `dead.<type>.<namespace>.<provider>`.
pub fn dead(provider: &ProviderReference) -> String {
    format!("dead.{}", addressee(provider))
}

/// What the consumer of one pool and type takes.
pub fn delivery_filter(pool: &str, kind: &str) -> String {
    format!("deliveries.{}.{}.>", Token::new(pool), Token::new(kind))
}

/// The durable consumer that all workers of a pool share for one type.
pub fn worker_durable(pool: &str, kind: &str) -> String {
    format!("{}-{}", Token::new(pool), Token::new(kind))
}

fn destination(provider: &ProviderReference) -> String {
    format!("{}.{}", Token::new(&provider.pool), addressee(provider))
}

fn addressee(provider: &ProviderReference) -> String {
    let [kind, namespace, name] =
        [&provider.r#type, &provider.namespace, &provider.name].map(|text| Token::new(text));
    format!("{kind}.{namespace}.{name}")
}

#[cfg(test)]
mod tests {
    use tidings_proto::v1::ObjectReference;

    use super::*;

    #[test]
    fn an_event_is_published_under_its_cluster_namespace_kind_and_severity() {
        let object = ObjectReference {
            namespace: "apps".into(),
            kind: "HelmRelease".into(),
            ..Default::default()
        };
        let mut sample = Event {
            cluster: "eu.1".into(),
            severity: "info".into(),
            involved_object: Some(object),
            ..Default::default()
        };
        assert_eq!(event(&sample), "events.eu=2E1.apps.HelmRelease.info");
        sample.severity = "Info".into();
        assert_eq!(event(&sample), "events.eu=2E1.apps.HelmRelease.other");
        sample.involved_object = None;
        assert_eq!(event(&sample), "events.eu=2E1.=.=.other");
    }

    #[test]
    fn a_delivery_is_ready_parked_told_and_dead_under_its_provider() {
        let provider = ProviderReference {
            namespace: "apps".into(),
            name: "on-call".into(),
            r#type: "incident.io".into(),
            pool: "default".into(),
        };
        assert_eq!(
            delivery(&provider),
            "deliveries.default.incident=2Eio.apps.on-call"
        );
        assert_eq!(
            parked(&provider, "abc"),
            "parked.default.incident=2Eio.apps.on-call.abc"
        );
        assert_eq!(
            outcome(&provider, "dead"),
            "outcomes.incident=2Eio.apps.on-call.dead"
        );
        assert_eq!(dead(&provider), "dead.incident=2Eio.apps.on-call");
        assert_eq!(
            delivery_filter("default", "incident.io"),
            "deliveries.default.incident=2Eio.>"
        );
        assert_eq!(
            worker_durable("default", "incident.io"),
            "default-incident=2Eio"
        );
    }

    #[test]
    fn a_filter_names_what_is_asked_for() {
        assert_eq!(
            event_filter(None, Some("apps"), None, Some("error")),
            "events.*.apps.*.error"
        );
    }
}
