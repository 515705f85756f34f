//! From an event and the rules to the deliveries that are owed. Pure: the same input gives the same
//! ids, on whichever replica, however often.

use tidings_core::model::flux;
use tidings_core::model::id;
use tidings_core::{AlertReference, Delivery, Event, Message, ProtoTimestamp, ProviderReference};
use tidings_rules::provider::DEFAULT_POOL;
use tidings_rules::{Alert, Rules, Template};

use crate::matching::{Verdict, names, object, verdict};
use crate::metadata;

/// A larger event is left out of its deliveries, and read from the stream at the attempt.
pub const LARGEST_EVENT_BYTES: usize = 64 << 10;

/// What is the same for all deliveries of one planning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planning {
    /// The event's sequence in EVENTS.
    pub event_sequence: u64,
    /// When it is planned.
    pub planned_at: ProtoTimestamp,
    /// 0, or the number of a replay.
    pub generation: u32,
}

/// What an event comes to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One for each Alert that matched, by namespace and name of the Alert.
    pub deliveries: Vec<Delivery>,
    /// The verdict on each Alert that was looked at.
    pub verdicts: Vec<Verdict>,
}

/// What one Alert comes to, for people.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// `namespace/name` of the Alert.
    pub alert: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Exactly why.
    pub sentence: String,
    /// What is owed, where it matched.
    pub delivery: Option<Delivery>,
}

/// Plans an event. Only Alerts with a source for its object are looked at; for all others there is
/// no verdict.
pub fn plan(rules: &Rules, event: &Event, planning: Planning) -> Plan {
    let object = object(event);
    let mut plan = Plan::default();
    for alert in rules.candidates(&object.kind, &object.namespace, &object.name) {
        let verdict = verdict(alert, event, rules);
        plan.verdicts.push(verdict);
        if verdict == Verdict::Matched {
            plan.deliveries
                .push(delivery(alert, event, rules, planning));
        }
    }
    plan
}

/// Says of every Alert, also of refused ones, what it makes of an event, and why.
pub fn explain(rules: &Rules, event: &Event, planning: Planning) -> Vec<Explanation> {
    let in_force = rules.alerts().map(|alert| {
        let verdict = verdict(alert, event, rules);
        Explanation {
            alert: format!("{}/{}", alert.namespace, alert.name),
            verdict,
            sentence: sentence(verdict, alert, event),
            delivery: (verdict == Verdict::Matched)
                .then(|| delivery(alert, event, rules, planning)),
        }
    });
    let refused = rules
        .rejected()
        .iter()
        .filter(|(identity, _)| identity.kind == "Alert")
        .map(|(identity, why)| Explanation {
            alert: format!("{}/{}", identity.namespace, identity.name),
            verdict: Verdict::NoEventSourceMatches,
            sentence: format!("the Alert is refused: {why}"),
            delivery: None,
        });
    in_force.chain(refused).collect()
}

fn delivery(alert: &Alert, event: &Event, rules: &Rules, planning: Planning) -> Delivery {
    let provider = rules.provider(&alert.namespace, &alert.provider);
    let reads_alert = provider.is_some_and(|provider| provider.commit_status_expr.is_some());
    let [alert_id, provider_id] =
        [&alert.name, &alert.provider].map(|name| (alert.namespace.as_str(), name.as_str()));
    Delivery {
        id: id::delivery_id(&event.id, alert_id, provider_id, planning.generation),
        event_id: event.id.clone(),
        event: (event.encoded_len() <= LARGEST_EVENT_BYTES).then(|| event.clone()),
        event_sequence: planning.event_sequence,
        alert: Some(AlertReference {
            namespace: alert.namespace.clone(),
            name: alert.name.clone(),
            uid: alert.uid.clone(),
            manifest: if reads_alert {
                alert.manifest.to_string()
            } else {
                String::new()
            },
        }),
        provider: Some(ProviderReference {
            namespace: alert.namespace.clone(),
            name: alert.provider.clone(),
            r#type: provider.map_or_else(String::new, |provider| provider.kind.name.to_owned()),
            pool: provider
                .map_or(DEFAULT_POOL, |provider| &provider.pool)
                .to_owned(),
        }),
        metadata: metadata::combine(alert, event).into_iter().collect(),
        channel: alert.channel.clone(),
        template: alert.template.as_ref().map(Template::reference),
        generation: planning.generation,
        planned_at: Some(planning.planned_at),
        ..Delivery::default()
    }
}

/// Why, in a sentence that names what was compared.
fn sentence(verdict: Verdict, alert: &Alert, event: &Event) -> String {
    let provider = format!("Provider {}/{}", alert.namespace, alert.provider);
    match verdict {
        Verdict::Matched => format!("the event goes to {provider}"),
        Verdict::AlertSuspended => "the Alert is suspended".to_owned(),
        Verdict::NoEventSourceMatches => no_source(alert, event),
        Verdict::BelowSeverity => format!(
            "the Alert's eventSeverity does not take the severity \"{}\"",
            event.severity
        ),
        Verdict::LabelsDiffer => {
            format!(
                "{} does not have the labels that matchLabels asks for: {}",
                name(event),
                labels(alert, event)
            )
        }
        Verdict::LabelsUnknown => {
            format!(
                "matchLabels asks for {}, and the labels of {} are not known",
                labels(alert, event),
                name(event)
            )
        }
        Verdict::MessageNotIncluded => {
            "no pattern of inclusionList is found in the message".to_owned()
        }
        Verdict::MessageExcluded => "a pattern of exclusionList is found in the message".to_owned(),
        Verdict::OtherCluster => format!(
            "the Alert's clusters do not name the cluster \"{}\"",
            event.cluster
        ),
        Verdict::CrossNamespaceRefused => {
            format!(
                "the event is from namespace {}, and references across namespaces are refused",
                object(event).namespace
            )
        }
        Verdict::ProviderSuspended => format!("{provider} is suspended"),
        Verdict::NotACommitStatusProvider => {
            format!(
                "commit_status: update goes to commit statuses only, and {provider} is for none"
            )
        }
        Verdict::NoCommit => format!(
            "{provider} needs a commit: an error, the annotation {}/commit, commit_status: update, or a Kustomization's success \
             with a git revision",
            flux::EVENT_GROUP
        ),
        Verdict::NoChangeRequest => format!(
            "{provider} needs the annotation {}/change_request on the object",
            flux::EVENT_GROUP
        ),
    }
}

/// The source that agrees with the object in most of kind, namespace and name, in this order.
fn no_source(alert: &Alert, event: &Event) -> String {
    let object = object(event);
    let nearness = |source: &&tidings_rules::EventSource| {
        let namespace = source
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace);
        let name = source.name.as_ref().is_none_or(|name| *name == object.name);
        (source.kind == object.kind, namespace, name)
    };
    // The first of several that are equally near.
    match alert.sources.iter().rev().max_by_key(nearness) {
        None => "the Alert has no eventSources".to_owned(),
        Some(source) => {
            let any = || "*".to_owned();
            let (namespace, wanted) = (
                source.namespace.clone().unwrap_or_else(any),
                source.name.clone().unwrap_or_else(any),
            );
            format!(
                "no source names {}; the nearest is {} {namespace}/{wanted}",
                name(event),
                source.kind
            )
        }
    }
}

fn name(event: &Event) -> String {
    let object = object(event);
    format!("{} {}/{}", object.kind, object.namespace, object.name)
}

/// The labels of the first source that names the object.
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
mod tests {
    use serde_json::{Value, json};
    use tidings_core::{ObjectReference, TemplateReference};
    use tidings_rules::testing::{self, provider};
    use tidings_rules::{Family, Kind, Kinds, Object, Options};

    use super::*;

    const KINDS: Kinds = &[Kind {
        name: "github",
        family: Family::CommitStatus,
    }];

    fn alert(name: &str, provider: &str, source: Value) -> Object {
        testing::alert(name, provider)
            .with("eventSources", json!([source]))
            .object()
    }

    fn rules() -> Rules {
        let all = json!({"kind": "Kustomization", "name": "*"});
        let objects = [
            alert("plain", "plain", all.clone()),
            alert("expression", "expression", all),
            alert(
                "near",
                "plain",
                json!({"kind": "Kustomization", "name": "y"}),
            ),
            alert(
                "far",
                "plain",
                json!({"kind": "HelmRelease", "name": "x", "namespace": "infra"}),
            ),
            alert(
                "refused",
                "plain",
                json!({"kind": "HelmRelease", "name": ""}),
            ),
            provider("plain", "github").with("pool", "eu").object(),
            provider("expression", "github")
                .with("commitStatusExpr", "alert.metadata.name")
                .object(),
        ];
        Rules::compile(&objects, KINDS, &Options::default())
    }

    fn event(message: &str) -> Event {
        let object = ObjectReference {
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "x".into(),
            ..Default::default()
        };
        Event {
            id: "e".into(),
            severity: "error".into(),
            message: message.into(),
            involved_object: Some(object),
            ..Event::default()
        }
    }

    #[test]
    fn a_delivery_goes_to_each_alert_that_matched_and_keeps_its_id() {
        let first = plan(
            &rules(),
            &event("text"),
            Planning {
                event_sequence: 7,
                ..Planning::default()
            },
        );
        assert_eq!(first.verdicts, [Verdict::Matched, Verdict::Matched]);
        let [expression, plain] = &first.deliveries[..] else {
            panic!("{:?}", first.deliveries)
        };
        let provider = plain.provider.as_ref().unwrap();
        assert_eq!(
            (provider.r#type.as_str(), provider.pool.as_str()),
            ("github", "eu")
        );
        assert_eq!(
            (plain.event_sequence, plain.event.as_ref()),
            (7, Some(&event("text")))
        );
        let manifest = &expression.alert.as_ref().unwrap().manifest;
        assert_eq!(
            serde_json::from_str::<Value>(manifest).unwrap()["metadata"]["name"],
            "expression"
        );
        assert_eq!(plain.alert.as_ref().unwrap().manifest, "");
        assert_eq!(
            plan(
                &rules(),
                &event("text"),
                Planning {
                    event_sequence: 7,
                    ..Planning::default()
                }
            )
            .deliveries,
            first.deliveries
        );
        let replayed = plan(
            &rules(),
            &event("text"),
            Planning {
                generation: 1,
                ..Planning::default()
            },
        );
        assert!(replayed.deliveries.iter().all(|replay| {
            first
                .deliveries
                .iter()
                .all(|delivery| delivery.id != replay.id)
        }));
    }

    #[test]
    fn a_delivery_carries_the_alerts_template_and_not_the_providers() {
        let template = json!({"configMapKeyRef": {"name": "texts", "key": "short"}});
        let objects = [
            testing::alert("own", "p")
                .with("template", template)
                .object(),
            testing::alert("without", "p").object(),
            provider("p", "github")
                .with("template", json!({"inline": "of the Provider"}))
                .object(),
        ];
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        let deliveries = plan(
            &rules,
            &event("text"),
            Planning {
                ..Planning::default()
            },
        )
        .deliveries;
        let reference = TemplateReference {
            config_map: "texts".into(),
            key: "short".into(),
            ..Default::default()
        };
        assert_eq!(
            deliveries
                .iter()
                .map(|delivery| delivery.template.clone())
                .collect::<Vec<_>>(),
            [Some(reference), None]
        );
    }

    #[test]
    fn a_large_event_is_left_out_of_its_deliveries() {
        let plan = plan(
            &rules(),
            &event(&"x".repeat(LARGEST_EVENT_BYTES)),
            Planning::default(),
        );
        assert!(
            plan.deliveries
                .iter()
                .all(|delivery| delivery.event.is_none() && delivery.event_id == "e")
        );
    }

    #[test]
    fn every_alert_is_explained() {
        let explained = explain(&rules(), &event("text"), Planning::default());
        let told: Vec<_> = explained
            .iter()
            .map(|it| (it.alert.as_str(), it.verdict.as_str(), it.sentence.as_str()))
            .collect();
        let expected = [
            (
                "apps/expression",
                "matched",
                "the event goes to Provider apps/expression",
            ),
            (
                "apps/far",
                "no-event-source-matches",
                "no source names Kustomization apps/x; the nearest is HelmRelease infra/x",
            ),
            (
                "apps/near",
                "no-event-source-matches",
                "no source names Kustomization apps/x; the nearest is Kustomization apps/y",
            ),
            (
                "apps/plain",
                "matched",
                "the event goes to Provider apps/plain",
            ),
        ];
        assert_eq!(told[..4], expected);
        assert!(
            told[4].0 == "apps/refused"
                && told[4]
                    .2
                    .starts_with("the Alert is refused: spec.eventSources[0].name: is empty")
        );
    }
}
