//! The subjects of the four streams, their filters, and the names of consumers.

use tidings_proto::v1::{Event, ProviderReference};

use crate::model::token::Token;

/// The filter for all events of all clusters.
pub const ALL_EVENTS: &str = "events.>";
/// The filter for all events that bridges republish as CloudEvents.
pub const ALL_CLOUD_EVENTS: &str = "cloudevents.>";
/// The filter for all deliveries that are ready for an attempt.
pub const ALL_DELIVERIES: &str = "deliveries.>";
/// The filter for all parked deliveries.
pub const ALL_PARKED: &str = "parked.>";
/// The filter for all outcomes.
pub const ALL_OUTCOMES: &str = "outcomes.>";
/// The filter for the outcomes of attempts that are repeated.
pub const RETRYING_OUTCOMES: &str = "outcomes.*.*.*.retrying";
/// The filter for all dead letters.
pub const ALL_DEAD: &str = "dead.>";
/// The filter for all records of actions.
pub const ALL_AUDIT: &str = "audit.>";
/// The filter for all records of shadow mode.
pub const ALL_SHADOW: &str = "shadow.>";

/// The subject of an event: `events.<cluster>.<namespace>.<kind>.<severity>`.
pub fn event(event: &Event) -> String {
    below("events", event)
}

/// The subject of an event that a bridge republishes:
/// `cloudevents.<cluster>.<namespace>.<kind>.<severity>`.
pub fn cloud_event(event: &Event) -> String {
    below("cloudevents", event)
}

fn below(root: &str, event: &Event) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    let severity = severity_token(&event.severity);
    let [cluster, namespace, kind] =
        [&event.cluster, &object.namespace, &object.kind].map(|text| Token::new(text));
    format!("{root}.{cluster}.{namespace}.{kind}.{severity}")
}

/// The filter for events with the given cluster, namespace, kind and severity. `None` means any.
pub fn event_filter(
    cluster: Option<&str>,
    namespace: Option<&str>,
    kind: Option<&str>,
    severity: Option<&str>,
) -> String {
    let part = |text: Option<&str>| {
        text.map_or_else(|| "*".to_owned(), |text| Token::new(text).to_string())
    };
    let severity = severity.map_or("*", severity_token);
    format!(
        "events.{}.{}.{}.{severity}",
        part(cluster),
        part(namespace),
        part(kind)
    )
}

/// The severity in subjects and metrics: trace, info, warn, error or other.
pub fn severity_token(severity: &str) -> &'static str {
    match severity {
        "trace" => "trace",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" => "error",
        _ => "other",
    }
}

/// The subject of a delivery that is ready: `deliveries.<pool>.<type>.<namespace>.<provider>`.
pub fn delivery(provider: &ProviderReference) -> String {
    format!("deliveries.{}", pool_and_provider(provider))
}

/// The subject of a parked delivery: `parked.<pool>.<type>.<namespace>.<provider>.<key>`. A second
/// message on the same subject replaces the first.
pub fn parked(provider: &ProviderReference, parking_key: &str) -> String {
    let key = Token::new(parking_key);
    format!("parked.{}.{key}", pool_and_provider(provider))
}

/// The filter for the parked deliveries of a Provider, in any pool and of any type.
pub fn parked_filter(namespace: &str, provider: &str) -> String {
    format!(
        "parked.*.*.{}.{}.*",
        Token::new(namespace),
        Token::new(provider)
    )
}

/// The filters for messages about a Provider: ready and parked deliveries, outcomes, dead letters.
pub fn provider_filters(namespace: &str, provider: &str) -> [String; 4] {
    let [namespace, name] = [namespace, provider].map(Token::new);
    [
        format!("deliveries.*.*.{namespace}.{name}"),
        format!("parked.*.*.{namespace}.{name}.*"),
        format!("outcomes.*.{namespace}.{name}.*"),
        format!("dead.*.{namespace}.{name}"),
    ]
}

/// The subject of an outcome: `outcomes.<type>.<namespace>.<provider>.<outcome>`.
pub fn outcome(provider: &ProviderReference, outcome: &str) -> String {
    format!("outcomes.{}.{outcome}", type_and_provider(provider))
}

/// The subject of a dead letter: `dead.<type>.<namespace>.<provider>`.
pub fn dead(provider: &ProviderReference) -> String {
    format!("dead.{}", type_and_provider(provider))
}

/// The subject of a record of shadow mode: `shadow.<type>.<namespace>.<provider>`.
pub fn shadow(provider: &ProviderReference) -> String {
    format!("shadow.{}", type_and_provider(provider))
}

/// The subject of a record of an action: `audit.<action>`.
pub fn audit(action: &str) -> String {
    format!("audit.{}", Token::new(action))
}

/// The filter of the consumer of one pool and type.
pub fn delivery_filter(pool: &str, kind: &str) -> String {
    format!("deliveries.{}.{}.>", Token::new(pool), Token::new(kind))
}

/// The name of the durable consumer that all workers of a pool share for one type.
pub fn worker_durable(pool: &str, kind: &str) -> String {
    format!("{}-{}", Token::new(pool), Token::new(kind))
}

fn pool_and_provider(provider: &ProviderReference) -> String {
    format!(
        "{}.{}",
        Token::new(&provider.pool),
        type_and_provider(provider)
    )
}

fn type_and_provider(provider: &ProviderReference) -> String {
    let [kind, namespace, name] =
        [&provider.r#type, &provider.namespace, &provider.name].map(|text| Token::new(text));
    format!("{kind}.{namespace}.{name}")
}

#[cfg(test)]
mod tests {
    use tidings_proto::v1::ObjectReference;

    use super::*;

    #[test]
    fn an_events_subject_has_its_cluster_namespace_kind_and_severity() {
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
    fn the_subjects_of_a_delivery_name_its_provider() {
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
    fn a_filter_has_a_wildcard_for_each_part_that_is_not_given() {
        assert_eq!(
            event_filter(None, Some("apps"), None, Some("error")),
            "events.*.apps.*.error"
        );
    }
}
