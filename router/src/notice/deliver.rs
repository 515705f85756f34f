//! Makes the delivery of a notice. Pure.

use jiff::Timestamp;
use tidings_core::model::id;
use tidings_core::model::notice::NoticeKind;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::config::ProviderName;
use tidings_core::{AlertReference, Delivery, Event, ObjectReference, ProviderReference};
use tidings_rules::Rules;
use tidings_rules::provider::DEFAULT_POOL;

/// The controller that reports, and the kind of the object that a notice is about.
const REPORTER: &str = "tidings";
const OBJECT_KIND: &str = "Tidings";

/// What a notice says.
pub(super) struct Notice {
    pub(super) kind: NoticeKind,
    pub(super) severity: &'static str,
    pub(super) reason: &'static str,
    /// Without secrets, and of a few KiB at most.
    pub(super) message: String,
    /// Different for each notice of the kind.
    pub(super) seed: String,
    /// When the next notice replaces it.
    pub(super) not_after: Option<Timestamp>,
}

/// The delivery of a notice to a Provider. Equal notices have equal ids.
pub(super) fn delivery(
    notice: &Notice,
    rules: &Rules,
    provider: &ProviderName,
    cluster: &str,
    now: Timestamp,
) -> Delivery {
    let kind = notice.kind.as_str();
    let key = id::digest(&["notice", kind, cluster, &notice.seed]);
    let event = event(notice, provider, cluster, &key, now);
    // No object has a name with a colon, so no Alert of a user is meant. It is in the namespace of
    // the Provider, which needs no grant.
    let alert = format!("{REPORTER}:{kind}");
    let (namespace, name) = (provider.namespace.as_str(), provider.name.as_str());
    let known = rules.provider(namespace, name);
    Delivery {
        id: id::delivery_id(&key, (namespace, &alert), (namespace, name), 0),
        event_id: event.id.clone(),
        event: Some(event),
        alert: Some(AlertReference {
            namespace: namespace.to_owned(),
            name: alert,
            ..AlertReference::default()
        }),
        provider: Some(ProviderReference {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            r#type: known.map_or_else(String::new, |provider| provider.kind.name.to_owned()),
            pool: known
                .map_or(DEFAULT_POOL, |provider| &provider.pool)
                .to_owned(),
        }),
        planned_at: Some(to_proto(now)),
        notice: kind.to_owned(),
        not_after: notice.not_after.map(to_proto),
        ..Delivery::default()
    }
}

fn event(
    notice: &Notice,
    provider: &ProviderName,
    cluster: &str,
    key: &str,
    now: Timestamp,
) -> Event {
    Event {
        id: key.to_owned(),
        dedupe_key: key.to_owned(),
        cluster: cluster.to_owned(),
        involved_object: Some(ObjectReference {
            kind: OBJECT_KIND.to_owned(),
            namespace: provider.namespace.clone(),
            name: notice.kind.as_str().to_owned(),
            ..ObjectReference::default()
        }),
        severity: notice.severity.to_owned(),
        reason: notice.reason.to_owned(),
        message: notice.message.clone(),
        timestamp: Some(to_proto(now)),
        received_at: Some(to_proto(now)),
        reporting_controller: REPORTER.to_owned(),
        ..Event::default()
    }
}
