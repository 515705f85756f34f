//! Checks a template before its first message: names that do not exist, and errors.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tidings_core::model::nearest::nearest;
use tidings_core::{AlertReference, Event, ObjectReference, ProtoTimestamp};
use tidings_rules::template::{Escape, Program};

use crate::message::Message;
use crate::message::mentions::OwnMentions;
use crate::message::render::RenderedMessage;
use crate::message::template_context::TemplateContext;

/// The problems of a template. `metadata` is that of the Alert.
///
/// A name is wrong if no event can have it. Any metadata may exist. Other errors count only if they
/// happen for every sample, because a template may be written for some events only.
pub fn check(source: &str, escape: Escape, metadata: &BTreeMap<String, String>) -> Vec<String> {
    let program = match Program::compile(source, escape) {
        Ok(program) => program,
        Err(message) => return vec![format!("{message}; messages have the standard form")],
    };
    let names = program.names_read();
    let samples = samples(&names, metadata);
    let labels = labels_of(&names);
    let context = |sample: &Sample| sample_context(sample, escape, &labels);
    let variables = serde_json::to_value(context(&samples[0])).unwrap_or_default();
    let mut found: Vec<String> = names
        .iter()
        .filter_map(|name| undefined(name, &variables))
        .collect();
    // The link of a commit status is left out if the event lacks a value.
    if found.is_empty() && escape != Escape::Url {
        let render = |sample: &Sample| {
            let context = context(sample);
            let rendered = catch_unwind(AssertUnwindSafe(|| program.render(&context)));
            rendered.unwrap_or_else(|_| Err("the template engine panicked; simplify it".to_owned()))
        };
        let errors: Vec<String> = samples.iter().filter_map(|it| render(it).err()).collect();
        if errors.len() == samples.len() {
            found.extend(errors.into_iter().next().map(|message| {
                format!("{message}, for every sample event; messages have the standard form")
            }));
        }
    }
    found
}

/// The problem of a name, such as `event.mesage`; `None` if it can exist.
fn undefined(name: &str, variables: &Value) -> Option<String> {
    let mut value = variables;
    let mut path = String::new();
    for part in name.split('.') {
        if matches!(
            path.as_str(),
            "metadata" | "event.metadata" | "cluster_labels"
        ) {
            return None;
        }
        let Value::Object(map) = value else {
            return Some(format!("{name} is undefined, because {path} has no parts"));
        };
        let Some(inner) = map.get(part) else {
            let prefix = match path.as_str() {
                "" => String::new(),
                path => format!("{path}."),
            };
            let known = || map.keys().map(String::as_str);
            let fix = match nearest(part, known()) {
                Some(near) => format!("; did you mean {prefix}{near}?"),
                None if map.is_empty() => String::new(),
                None => format!("; use one of {}", known().collect::<Vec<_>>().join(", ")),
            };
            return Some(format!("{prefix}{part} is undefined{fix}"));
        };
        path = match path.as_str() {
            "" => part.to_owned(),
            path => format!("{path}.{part}"),
        };
        value = inner;
    }
    None
}

/// An event with its combined metadata.
pub struct Sample {
    pub event: Event,
    pub object: ObjectReference,
    pub metadata: BTreeMap<String, String>,
}

/// A success with every value that an event can have, an error, and an event without metadata.
pub fn samples(names: &[String], metadata: &BTreeMap<String, String>) -> [Sample; 3] {
    let object = ObjectReference {
        api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
        kind: "Kustomization".into(),
        namespace: "apps".into(),
        name: "web".into(),
        uid: "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f".into(),
        resource_version: "1".into(),
        field_path: "spec".into(),
    };
    let event = |severity: &str, reason: &str, message: &str| Event {
        cluster: "prod".into(),
        severity: severity.into(),
        reason: reason.into(),
        message: message.into(),
        timestamp: Some(ProtoTimestamp {
            seconds: 1_773_480_413,
            nanos: 0,
        }),
        reporting_controller: "kustomize-controller".into(),
        reporting_instance: "kustomize-controller-0".into(),
        involved_object: Some(object.clone()),
        ..Event::default()
    };
    let of_names = names.iter().filter_map(|name| {
        let name = name.strip_prefix("event.").unwrap_or(name);
        let key = name.strip_prefix("metadata.")?.split('.').next()?;
        Some((key.to_owned(), "value".to_owned()))
    });
    let of_flux = [
        (
            "revision",
            "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
        ),
        ("repository", "https://github.com/acme/fleet"),
        ("summary", "Production"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut all: BTreeMap<String, String> = of_names.chain(of_flux).collect();
    all.extend(metadata.clone());
    let sample = |event: Event, metadata: &BTreeMap<String, String>| Sample {
        event,
        object: object.clone(),
        metadata: metadata.clone(),
    };
    let success = || {
        event(
            "info",
            "ReconciliationSucceeded",
            "Reconciliation finished in 1.35s",
        )
    };
    let failure = event(
        "error",
        "HealthCheckFailed",
        "Health check failed\nDeployment/web",
    );
    [
        sample(success(), &all),
        sample(failure, &all),
        sample(success(), metadata),
    ]
}

/// The Alert that selected the samples.
pub fn sample_alert() -> AlertReference {
    AlertReference {
        namespace: "apps".into(),
        name: "alert".into(),
        ..AlertReference::default()
    }
}

impl Sample {
    /// The message of the sample, to a channel.
    pub fn message<'a>(&'a self, alert: &'a AlertReference, channel: &'a str) -> Message<'a> {
        Message {
            delivery_id: "sample",
            event: &self.event,
            object: &self.object,
            metadata: &self.metadata,
            alert,
            channel,
            own_mentions: OwnMentions::NONE,
            rendered: RenderedMessage::STANDARD,
            former_clusters: &[],
        }
    }
}

/// A value for each label of the cluster that a template reads.
fn labels_of(names: &[String]) -> BTreeMap<String, String> {
    let keys = names
        .iter()
        .filter_map(|name| name.strip_prefix("cluster_labels."));
    keys.map(|key| (key.to_owned(), "value".to_owned()))
        .collect()
}

fn sample_context(
    sample: &Sample,
    escape: Escape,
    labels: &BTreeMap<String, String>,
) -> TemplateContext {
    let alert = sample_alert();
    let message = sample.message(&alert, "");
    let mut context = TemplateContext::of(&message, ("apps", "provider"), "slack");
    context.cluster_labels.clone_from(labels);
    // Patterns of links cannot use links.
    if escape != Escape::Url {
        let url = "https://example.com/".to_owned();
        context.links = BTreeMap::from([("commit", url.clone()), ("dashboard", url)]);
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(source: &str) -> Vec<String> {
        check(source, Escape::None, &BTreeMap::new())
    }

    #[test]
    fn a_name_that_no_event_has_is_found() {
        for (source, expected) in [
            ("{{ mesage }}", "mesage is undefined"),
            (
                "{{ event.mesage }}",
                "event.mesage is undefined; did you mean event.message?",
            ),
            ("{{ Name }}", "Name is undefined; did you mean name?"),
            (
                "{{ event.involvedObject.nam }}",
                "did you mean event.involvedObject.name?",
            ),
            ("{{ event.object.name }}", "event.object is undefined"),
            ("{{ kind.name }}", "kind.name is undefined"),
            ("{{ alert.namspace }}", "did you mean alert.namespace?"),
            ("{{ provider.address }}", "provider.address is undefined"),
            ("{{ links.comit }}", "did you mean links.commit?"),
            (
                "{% if evnt.severity == 'error' %}a{% else %}b{% endif %}",
                "did you mean event?",
            ),
            ("x {{ cluster|default(clster) }}", "did you mean cluster?"),
        ] {
            let found = checked(source);
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{source}: {found:?}"
            );
        }
        assert_eq!(checked("{{ a }} {{ b }}").len(), 2, "all of them");
    }

    #[test]
    fn a_template_that_works_for_some_events_is_fine() {
        for source in [
            "{{ event.message }} {{ metadata.team }} {{ metadata['image/tag'] }}",
            "{{ event.metadata.team|upper }} {{ metadata.a.b }}",
            "{% if event.severity == 'error' %}{{ event.message }}{% endif %}",
            "{% set title %}{{ kind }} {{ name }}{% endset %}{{ title }} {{ commit }}",
            "{% for k, v in metadata|items %}{{ loop.index }} {{ k }} {{ v }}{% endfor %}",
            "{% for line in event.message|lines %}{{ line }}{% endfor %}",
            "{% set stages = {'prod': 'P'} %}{{ stages[cluster]|default(cluster) }}",
            "{{ revision }} {{ branch }} {{ short_commit }} {{ repository }} {{ links.dashboard }}",
            "{{ cluster_labels.env }} {{ cluster_labels['example.com/tier']|upper }}",
            "{{ alert.name }} {{ provider.type }} {{ event.involvedObject.uid }}",
            "{{ event.timestamp }} {{ event.reportingController }} {{ namespace }}",
        ] {
            assert_eq!(checked(source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn a_template_that_works_for_no_event_is_found() {
        for source in [
            "{{ event.message",
            "{# nothing #}",
            "{{ name|nofilter }}",
            "{{ name + 1 }}",
        ] {
            assert_eq!(checked(source).len(), 1, "{source}");
        }
    }

    #[test]
    fn a_pattern_of_links_has_the_same_names_without_links() {
        let check = |source| check(source, Escape::Url, &BTreeMap::new()).len();
        assert_eq!(
            check("https://h/{{ cluster }}/{{ name }}/{{ metadata.team }}"),
            0
        );
        assert_eq!(check("https://h/{{ clusters }}"), 1);
        assert_eq!(check("{{ links.commit }}"), 1);
    }
}
