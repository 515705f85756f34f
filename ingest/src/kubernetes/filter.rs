//! Selects Kubernetes Events by the settings. Pure.

use k8s_openapi::api::events::v1::Event;
use tidings_core::model::flux;
use tidings_core::runtime::config::KubernetesEventsSettings;

/// The suffix of Flux's API groups. Flux posts events about its objects itself.
const FLUX_GROUP_SUFFIX: &str = ".toolkit.fluxcd.io";
/// The prefix of the reporting controller in Events that Tidings writes.
const OWN_CONTROLLER_PREFIX: &str = "tidings";

/// Selects Events by type, kind, namespace and reason.
#[derive(Clone, Debug)]
pub struct Filter {
    types: NameFilter,
    kinds: NameFilter,
    namespaces: NameFilter,
    reasons: NameFilter,
    flux_objects: bool,
}

/// Included names (empty means all) and excluded names.
#[derive(Clone, Debug, Default)]
struct NameFilter {
    included: Vec<String>,
    excluded: Vec<String>,
}

impl Filter {
    /// Builds the filter from the settings.
    pub fn new(settings: &KubernetesEventsSettings) -> Self {
        Self {
            types: NameFilter::new(&settings.types),
            kinds: NameFilter::new(&settings.kinds),
            namespaces: NameFilter::new(&settings.namespaces),
            reasons: NameFilter::new(&settings.reasons),
            flux_objects: settings.flux_objects,
        }
    }

    /// Whether an Event is selected. Events that Tidings wrote are never selected, because an Event
    /// about a dead letter could cause another dead letter.
    pub fn selects(&self, event: &Event) -> bool {
        let regarding = event.regarding.as_ref();
        let group = flux::api_group(
            regarding
                .and_then(|object| object.api_version.as_deref())
                .unwrap_or_default(),
        );
        let is_own = event
            .reporting_controller
            .as_deref()
            .is_some_and(|controller| controller.starts_with(OWN_CONTROLLER_PREFIX));
        self.types.selects(event.type_.as_deref())
            && self
                .kinds
                .selects(regarding.and_then(|object| object.kind.as_deref()))
            && self.namespaces.selects(event.metadata.namespace.as_deref())
            && self.reasons.selects(event.reason.as_deref())
            && (self.flux_objects || !group.ends_with(FLUX_GROUP_SUFFIX))
            && !is_own
    }

    /// The namespace to watch, if there is exactly one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespaces.only()
    }

    /// The part of the filter that the API server can evaluate.
    pub fn field_selector(&self) -> Option<String> {
        let fields = [
            ("type", &self.types),
            ("regarding.kind", &self.kinds),
            ("reason", &self.reasons),
        ];
        let terms: Vec<String> = fields
            .into_iter()
            .flat_map(|(field, filter)| {
                let only = filter.only().map(|name| format!("{field}={name}"));
                only.into_iter().chain(
                    filter
                        .excluded
                        .iter()
                        .map(move |name| format!("{field}!={name}")),
                )
            })
            // Other characters may have a special meaning in the selector.
            .filter(|term| {
                term.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'!' | b'.' | b'-')
                })
            })
            .collect();
        (!terms.is_empty()).then(|| terms.join(","))
    }
}

impl NameFilter {
    fn new(names: &[String]) -> Self {
        let mut filter = Self::default();
        for name in names {
            match name.strip_prefix('!') {
                Some(name) => filter.excluded.push(name.to_owned()),
                None => filter.included.push(name.clone()),
            }
        }
        filter
    }

    fn selects(&self, name: Option<&str>) -> bool {
        let name = name.unwrap_or_default();
        let is_among = |names: &[String]| names.iter().any(|other| other == name);
        (self.included.is_empty() || is_among(&self.included)) && !is_among(&self.excluded)
    }

    fn only(&self) -> Option<&str> {
        match &self.included[..] {
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
            "metadata": {"namespace": "apps"},
            "type": r#type,
            "reason": reason,
            "eventTime": null,
            "regarding": {"kind": kind, "apiVersion": api_version},
            "reportingController": controller,
        }))
        .unwrap()
    }

    #[test]
    fn warnings_except_about_fluxs_objects_are_selected_by_default() {
        let default = filter(|_| ());
        let with_flux = filter(|settings| settings.flux_objects = true);
        for (event, included, included_with_flux) in [
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
                (default.selects(&event), with_flux.selects(&event)),
                (included, included_with_flux),
                "{event:?}"
            );
        }
    }

    #[test]
    fn plain_names_include_and_names_with_an_exclamation_mark_exclude() {
        let back_off = event("Pod", "v1", "Warning", "BackOff", "kubelet");
        for (kinds, namespaces, reasons, included) in [
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
                filter.selects(&back_off),
                included,
                "{kinds:?} {namespaces:?} {reasons:?}"
            );
        }
    }

    #[test]
    fn the_field_selector_holds_what_the_api_server_can_evaluate() {
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
