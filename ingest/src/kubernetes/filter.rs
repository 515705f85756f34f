//! Which Kubernetes Events are taken. Pure.

use k8s_openapi::api::events::v1::Event;
use tidings_core::model::flux;
use tidings_core::runtime::config::KubernetesEventsSettings;

/// Flux's own groups end so; what happens to their objects is posted by Flux.
const FLUX_GROUPS: &str = ".toolkit.fluxcd.io";
/// Who reports the Events that we write ourselves begins so.
const OURSELVES: &str = "tidings";

/// The choice of the settings.
#[derive(Clone, Debug)]
pub struct Filter {
    types: Choice,
    kinds: Choice,
    namespaces: Choice,
    reasons: Choice,
    flux_objects: bool,
}

/// Names that are taken (none for all), and names that are not.
#[derive(Clone, Debug, Default)]
struct Choice {
    taken: Vec<String>,
    left_out: Vec<String>,
}

impl Filter {
    /// As the settings say.
    pub fn new(settings: &KubernetesEventsSettings) -> Self {
        Self {
            types: Choice::new(&settings.types),
            kinds: Choice::new(&settings.kinds),
            namespaces: Choice::new(&settings.namespaces),
            reasons: Choice::new(&settings.reasons),
            flux_objects: settings.flux_objects,
        }
    }

    /// Whether an Event is taken. Our own are not: an Alert about a failed delivery would make the
    /// next one.
    pub fn takes(&self, event: &Event) -> bool {
        let regarding = event.regarding.as_ref();
        let group = flux::api_group(
            regarding
                .and_then(|object| object.api_version.as_deref())
                .unwrap_or_default(),
        );
        let is_ours = event
            .reporting_controller
            .as_deref()
            .is_some_and(|controller| controller.starts_with(OURSELVES));
        self.types.takes(event.type_.as_deref())
            && self
                .kinds
                .takes(regarding.and_then(|object| object.kind.as_deref()))
            && self.namespaces.takes(event.metadata.namespace.as_deref())
            && self.reasons.takes(event.reason.as_deref())
            && (self.flux_objects || !group.ends_with(FLUX_GROUPS))
            && !is_ours
    }

    /// The namespace to watch where there is but one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespaces.only()
    }

    /// What of it the API server can decide, so that the rest is never sent.
    pub fn field_selector(&self) -> Option<String> {
        let fields = [
            ("type", &self.types),
            ("regarding.kind", &self.kinds),
            ("reason", &self.reasons),
        ];
        let terms: Vec<String> = fields
            .into_iter()
            .flat_map(|(field, choice)| {
                let only = choice.only().map(|name| format!("{field}={name}"));
                only.into_iter().chain(
                    choice
                        .left_out
                        .iter()
                        .map(move |name| format!("{field}!={name}")),
                )
            })
            // A selector has characters of its own.
            .filter(|term| {
                term.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'!' | b'.' | b'-')
                })
            })
            .collect();
        (!terms.is_empty()).then(|| terms.join(","))
    }
}

impl Choice {
    fn new(names: &[String]) -> Self {
        let mut choice = Self::default();
        for name in names {
            match name.strip_prefix('!') {
                Some(name) => choice.left_out.push(name.to_owned()),
                None => choice.taken.push(name.clone()),
            }
        }
        choice
    }

    fn takes(&self, name: Option<&str>) -> bool {
        let name = name.unwrap_or_default();
        let is_among = |names: &[String]| names.iter().any(|other| other == name);
        (self.taken.is_empty() || is_among(&self.taken)) && !is_among(&self.left_out)
    }

    fn only(&self) -> Option<&str> {
        match &self.taken[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn filter(change: impl FnOnce(&mut KubernetesEventsSettings)) -> Filter {
        let mut settings = KubernetesEventsSettings {
            watch: true,
            flux_objects: false,
            types: vec!["Warning".to_owned()],
            kinds: Vec::new(),
            namespaces: Vec::new(),
            reasons: Vec::new(),
            severities: Vec::new(),
            repeat_interval: Duration::from_secs(300),
            lease: "tidings-events".to_owned(),
        };
        change(&mut settings);
        Filter::new(&settings)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn event(kind: &str, api_version: &str, r#type: &str, reason: &str, controller: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {"namespace": "apps"}, "type": r#type, "reason": reason, "eventTime": null,
            "regarding": {"kind": kind, "apiVersion": api_version}, "reportingController": controller,
        }))
        .unwrap()
    }

    #[test]
    fn warnings_about_all_but_fluxs_objects_are_taken_by_default() {
        let default = filter(|_| ());
        let with_flux = filter(|settings| settings.flux_objects = true);
        for (event, taken, taken_with_flux) in [
            (
                event("Pod", "v1", "Warning", "BackOff", "kubelet"),
                true,
                true,
            ),
            (
                event("Pod", "v1", "Normal", "Pulled", "kubelet"),
                false,
                false,
            ),
            (
                event(
                    "HelmRelease",
                    "helm.toolkit.fluxcd.io/v2",
                    "Warning",
                    "A",
                    "helm-controller",
                ),
                false,
                true,
            ),
            (
                event(
                    "Alert",
                    "notification.toolkit.fluxcd.io/v1beta3",
                    "Warning",
                    "A",
                    "tidings",
                ),
                false,
                false,
            ),
            (
                event(
                    "FluxInstance",
                    "fluxcd.controlplane.io/v1",
                    "Warning",
                    "A",
                    "flux-operator",
                ),
                true,
                true,
            ),
        ] {
            assert_eq!(
                (default.takes(&event), with_flux.takes(&event)),
                (taken, taken_with_flux),
                "{event:?}"
            );
        }
    }

    #[test]
    fn what_is_named_is_taken_and_what_is_named_with_a_mark_is_not() {
        let back_off = event("Pod", "v1", "Warning", "BackOff", "kubelet");
        for (kinds, namespaces, reasons, taken) in [
            (&["Pod"][..], &["apps"][..], &["BackOff"][..], true),
            (&["Node", "Pod"], &[], &[], true),
            (&["Node"], &[], &[], false),
            (&["!Pod"], &[], &[], false),
            (&["!Node"], &["!kube-system"], &["!Unhealthy"], true),
            (&[], &["other"], &[], false),
            (&[], &["!apps"], &[], false),
            (&[], &[], &["BackOff", "!BackOff"], false),
        ] {
            let filter = filter(|settings| {
                (settings.kinds, settings.namespaces, settings.reasons) =
                    (names(kinds), names(namespaces), names(reasons));
            });
            assert_eq!(
                filter.takes(&back_off),
                taken,
                "{kinds:?} {namespaces:?} {reasons:?}"
            );
        }
    }

    #[test]
    fn the_api_server_is_told_what_it_can_decide() {
        assert_eq!(
            filter(|_| ()).field_selector().as_deref(),
            Some("type=Warning")
        );
        let many = filter(|settings| {
            settings.types = names(&["Warning", "Normal"]);
            settings.kinds = names(&["Pod"]);
            settings.reasons = names(&["!BackOff", "!Un,healthy"]);
            settings.namespaces = names(&["apps"]);
        });
        assert_eq!(
            many.field_selector().as_deref(),
            Some("regarding.kind=Pod,reason!=BackOff")
        );
        assert_eq!(many.namespace(), Some("apps"));
        assert_eq!(
            filter(|settings| settings.types.push("Normal".to_owned())).field_selector(),
            None
        );
    }
}
