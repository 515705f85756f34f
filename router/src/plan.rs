//! Plans the deliveries of an event and explains verdicts. Pure: the same input gives the same ids
//! on every replica.

use std::borrow::Cow;
use std::sync::Arc;

use tidings_core::bus::clusters::Clusters;
use tidings_core::model::destination::fingerprint;
use tidings_core::model::excerpt::excerpt;
use tidings_core::model::flux;
use tidings_core::model::id;
use tidings_core::model::metadata::size;
use tidings_core::model::object_state::{self, ObjectState};
use tidings_core::{AlertReference, Delivery, Event, Message, ProtoTimestamp, ProviderReference};
use tidings_rules::provider::DEFAULT_POOL;
use tidings_rules::{Alert, Provider, Rules, Template};

use crate::cluster_match::explain_other;
use crate::matching::{Verdict, names, object, verdict};
use crate::metadata;
use crate::pattern_searches::{LeftOut, PatternSearches};

/// A larger event is not copied into its deliveries; workers read it from the stream.
pub const MAX_EVENT_BYTES: usize = 64 << 10;

/// What all deliveries of an event share.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanContext {
    /// The event's sequence in EVENTS.
    pub event_sequence: u64,
    /// When the deliveries are planned.
    pub planned_at: ProtoTimestamp,
    /// 0 for the first plan, then the number of the replay.
    pub generation: u32,
}

/// The deliveries and verdicts of an event.
#[derive(Clone, Debug, Default)]
pub struct DeliveryPlan {
    /// One for each matching Alert, ordered by the Alert's namespace and name.
    pub deliveries: Vec<Delivery>,
    /// The verdict of each candidate Alert.
    pub verdicts: Vec<Verdict>,
    /// The patterns that were left out because they would take too many steps.
    pub left_out: Vec<LeftOut>,
}

/// The verdict of one Alert, with an explanation for people.
#[derive(Clone, Debug)]
pub struct AlertExplanation {
    /// `namespace/name` of the Alert.
    pub alert: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why the Alert has this verdict. Names the values that were compared.
    pub detail: String,
    /// The delivery, if the Alert matched.
    pub delivery: Option<Delivery>,
}

/// Plans the deliveries of an event. `clusters` is what the hub knows of clusters. Only candidate
/// Alerts get a verdict: those with an event source for the event's object.
pub fn plan(
    rules: &Rules,
    event: &Event,
    clusters: &Clusters,
    context: PlanContext,
) -> DeliveryPlan {
    let searches = PatternSearches::default();
    plan_with(rules, event, clusters, context, searches).unwrap_or_default()
}

/// Plans the deliveries of an event; `None` if the searches may not take enough steps for now.
pub(crate) fn plan_with(
    rules: &Rules,
    event: &Event,
    clusters: &Clusters,
    context: PlanContext,
    mut searches: PatternSearches,
) -> Option<DeliveryPlan> {
    let object = object(event);
    let mut plan = DeliveryPlan::default();
    for alert in rules.candidates(&object.kind, &object.namespace, &object.name) {
        let verdict = verdict(alert, event, rules, clusters, &mut searches);
        if searches.must_go_on() {
            return None;
        }
        plan.verdicts.push(verdict);
        if verdict == Verdict::Matched {
            let key = event_key(event, clusters);
            plan.deliveries
                .push(delivery(alert, event, &key, rules, context));
        }
    }
    plan.left_out = searches.left_out;
    Some(plan)
}

/// Explains the verdict of every Alert, including rejected ones.
pub fn explain(
    rules: &Rules,
    event: &Event,
    clusters: &Clusters,
    context: PlanContext,
) -> Vec<AlertExplanation> {
    let mut searches = PatternSearches::default();
    let in_effect = rules.alerts().map(|alert| {
        let verdict = verdict(alert, event, rules, clusters, &mut searches);
        let mut detail = detail(verdict, alert, event, clusters);
        if let Some(fields) = searches.fields_left_out(alert) {
            detail = format!("{detail}; {}", explain_left_out(fields));
        }
        AlertExplanation {
            alert: format!("{}/{}", alert.namespace, alert.name),
            verdict,
            detail,
            delivery: (verdict == Verdict::Matched).then(|| {
                let key = event_key(event, clusters);
                delivery(alert, event, &key, rules, context)
            }),
        }
    });
    let rejected = rules
        .rejected()
        .iter()
        .filter(|(identity, _)| identity.kind == "Alert")
        .map(|(identity, reason)| AlertExplanation {
            alert: format!("{}/{}", identity.namespace, identity.name),
            verdict: Verdict::NoEventSourceMatches,
            detail: format!("the Alert is rejected: {reason}"),
            delivery: None,
        });
    in_effect.chain(rejected).collect()
}

/// Members of a fleet write the ids of their events, so theirs are bound to the cluster.
fn event_key<'a>(event: &'a Event, clusters: &Clusters) -> Cow<'a, str> {
    let member = clusters.get(&event.cluster);
    match member.is_some_and(|member| member.binds_ids) {
        true => id::event_key(&event.id, &event.cluster),
        false => event.id.as_str().into(),
    }
}

fn delivery(
    alert: &Alert,
    event: &Event,
    event_key: &str,
    rules: &Rules,
    context: PlanContext,
) -> Delivery {
    let provider = rules.provider_of(alert);
    let reads_alert = provider.is_some_and(|provider| provider.commit_status_expr.is_some());
    let alert_id = (alert.namespace.as_str(), alert.name.as_str());
    let provider_id = (alert.provider_namespace.as_str(), alert.provider.as_str());
    let event_bytes = event.encoded_len();
    let is_large = event_bytes > MAX_EVENT_BYTES;
    let lacks_event_metadata = size(event) > MAX_EVENT_BYTES;
    Delivery {
        id: id::delivery_id(event_key, alert_id, provider_id, context.generation),
        event_id: event.id.clone(),
        event: (!is_large).then(|| event.clone()),
        excerpt: is_large.then(|| excerpt(event)),
        event_bytes: if is_large { event_bytes as u64 } else { 0 },
        event_sequence: context.event_sequence,
        alert: Some(AlertReference {
            namespace: alert.namespace.clone(),
            name: alert.name.clone(),
            uid: alert.uid.clone(),
            manifest: if reads_alert {
                alert.manifest.clone().into()
            } else {
                String::new()
            },
        }),
        provider: Some(ProviderReference {
            namespace: alert.provider_namespace.clone(),
            name: alert.provider.clone(),
            r#type: provider.map_or_else(String::new, |provider| provider.kind.name.to_owned()),
            pool: provider
                .map_or(DEFAULT_POOL, |provider| &provider.pool)
                .to_owned(),
        }),
        metadata: match lacks_event_metadata {
            true => metadata::of_alert(alert),
            false => metadata::merge(alert, event),
        },
        lacks_event_metadata,
        channel: planned_channel(alert, provider),
        template: alert.template.as_ref().map(Template::reference),
        generation: context.generation,
        planned_at: Some(context.planned_at),
        ..Delivery::default()
    }
}

/// The channel of the Alert, but a fingerprint if it is secret. It may be secret if the Provider
/// does not exist yet. The worker then reads the Alert's channel.
fn planned_channel(alert: &Alert, provider: Option<&Arc<Provider>>) -> String {
    match provider {
        Some(provider) => provider.kind.shown_channel(&alert.channel),
        None => fingerprint(&alert.channel),
    }
}

/// Explains a verdict. Names the values that were compared.
fn detail(verdict: Verdict, alert: &Alert, event: &Event, clusters: &Clusters) -> String {
    let provider = format!("Provider {}/{}", alert.provider_namespace, alert.provider);
    match verdict {
        Verdict::Matched => format!("the event goes to {provider}"),
        Verdict::AlertSuspended => "the Alert is suspended".to_owned(),
        Verdict::NoEventSourceMatches => no_source(alert, event),
        Verdict::BelowSeverity => format!(
            "the Alert's eventSeverity does not include the severity \"{}\"",
            event.severity
        ),
        Verdict::LabelsDiffer => {
            format!(
                "{} does not have the labels of matchLabels: {}",
                object_name(event),
                labels(alert, event)
            )
        }
        Verdict::LabelsUnknown => {
            format!(
                "matchLabels requires {}, and the labels of {} are unknown",
                labels(alert, event),
                object_name(event)
            )
        }
        Verdict::MessageNotIncluded => "no pattern of inclusionList matches the message".to_owned(),
        Verdict::PatternTooCostly => {
            "no pattern of inclusionList that was decided matches the message".to_owned()
        }
        Verdict::MessageExcluded => "a pattern of exclusionList matches the message".to_owned(),
        Verdict::OtherCluster => explain_other(alert, &event.cluster, clusters),
        Verdict::ClusterNotVisible => format!(
            "the hub does not show the cluster \"{}\" to namespace {}; see `tidings fleet list`",
            event.cluster, alert.namespace
        ),
        Verdict::NotTheLocalCluster => format!(
            "the event is from cluster \"{}\", and rules.local_cluster_only is set",
            event.cluster
        ),
        Verdict::NotTheMembersCluster => format!(
            "the event is from cluster \"{}\", and the Alert lives in cluster \"{}\"",
            event.cluster,
            alert.member.as_deref().unwrap_or_default()
        ),
        Verdict::CrossNamespaceRefused => {
            format!(
                "the event is from namespace {}, and cross-namespace references are disabled",
                object(event).namespace
            )
        }
        Verdict::ProviderNotGranted => format!(
            "{provider} is in another namespace; create a ProviderGrant in namespace {} with \
             spec.from: [{{namespace: {}}}], and with {} in spec.providers if that is set",
            alert.provider_namespace, alert.namespace, alert.provider
        ),
        Verdict::ProviderSuspended => format!("{provider} is suspended"),
        Verdict::NotACommitStatusProvider => {
            format!(
                "commit_status: update is only for commit status providers, and {provider} is not \
                 one"
            )
        }
        Verdict::NoCommit => no_commit(&provider, event),
        Verdict::NoChangeRequest => format!(
            "{provider} needs the annotation {}/change_request on the object",
            flux::EVENT_GROUP
        ),
    }
}

/// How many fields an explanation names.
const MAX_FIELDS: usize = 3;

/// Says which patterns were left out, and what to do.
pub(crate) fn explain_left_out(fields: &[String]) -> String {
    let mut named = fields[..fields.len().min(MAX_FIELDS)].join(", ");
    if fields.len() > MAX_FIELDS {
        named.push_str(&format!(" and {} more", fields.len() - MAX_FIELDS));
    }
    format!(
        "{named} would take too many steps for the message and had no effect; use smaller \
         repetitions, anchors, or several short patterns"
    )
}

/// Says whether the reason or the revision of the event is the cause.
fn no_commit(provider: &str, event: &Event) -> String {
    let group = flux::EVENT_GROUP;
    let state = match object_state::of(event) {
        ObjectState::Success | ObjectState::Failure => {
            return format!(
                "{provider} needs a commit: a git revision with 40 digits in the event's metadata, \
                 the annotation {group}/commit, or commit_status: update"
            );
        }
        ObjectState::Pending => "pending",
        ObjectState::None => "none",
    };
    format!(
        "{provider} writes success and failure, and the reason \"{}\" of severity info stands for \
         the state {state} (docs/reference/states.md); set reasonStates or commitStatus.pending of \
         the Provider to change that",
        event.reason
    )
}

/// Names the event source that is closest to the object: by kind, then namespace, then name.
fn no_source(alert: &Alert, event: &Event) -> String {
    let object = object(event);
    let closeness = |source: &&tidings_rules::EventSource| {
        let namespace = source
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace);
        let name = source.name.as_ref().is_none_or(|name| *name == object.name);
        (source.kind == object.kind, namespace, name)
    };
    // `max_by_key` returns the last maximum, so `rev` selects the first of equally close sources.
    match alert.sources.iter().rev().max_by_key(closeness) {
        None => "the Alert has no eventSources".to_owned(),
        Some(source) => {
            let any = || "*".to_owned();
            let (namespace, name) = (
                source.namespace.clone().unwrap_or_else(any),
                source.name.clone().unwrap_or_else(any),
            );
            format!(
                "no event source names {}; the closest is {} {namespace}/{name}",
                object_name(event),
                source.kind
            )
        }
    }
}

fn object_name(event: &Event) -> String {
    let object = object(event);
    format!("{} {}/{}", object.kind, object.namespace, object.name)
}

/// The labels of the first event source that names the object.
fn labels(alert: &Alert, event: &Event) -> String {
    let mut sources = alert
        .sources
        .iter()
        .filter(|source| names(source, event) && !source.match_labels.is_empty());
    let labels = sources.next().map(|source| {
        source
            .match_labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
    });
    labels
        .map(|labels| labels.collect::<Vec<_>>().join(","))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
