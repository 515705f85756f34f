//! Flags as the highest layer of the settings.

use std::path::PathBuf;

use clap::Args;
use tidings_core::runtime::config::{Flag, Settings, Sources, environment};

/// Flags that every role takes.
#[derive(Args, Debug, Clone, Default)]
pub struct CommonFlags {
    /// A YAML file of settings; flags and environment (TIDINGS_…) go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The NATS servers, with commas between them
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A level, or levels by module
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of roles that speak with the Kubernetes API: all of them.
#[derive(Args, Debug, Clone, Default)]
pub struct KubernetesFlags {
    /// The kubeconfig of the cluster; else the cluster that this runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
}

/// Flags of roles that take events.
#[derive(Args, Debug, Clone, Default)]
pub struct IngestFlags {
    /// Where events are taken
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The name of the cluster whose events these are
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// For how long the same event is a duplicate
    #[arg(long, alias = "rate-limit-interval", value_name = "DURATION")]
    dedupe_interval: Option<String>,
    /// A kind of object whose labels are read, such as Deployment.apps; repeatable. Else Flux's
    /// kinds
    #[arg(long, value_name = "KIND")]
    label_kinds: Vec<String>,
    /// Take the cluster's Kubernetes Events, in one of several replicas
    #[arg(long)]
    watch_events: bool,
    /// With --watch-events: those about Flux's objects too, which Flux also posts
    #[arg(long)]
    watch_flux_objects: bool,
    /// With --watch-events: Warning or Normal; repeatable. Else Warning
    #[arg(long, value_name = "TYPE")]
    event_types: Vec<String>,
    /// With --watch-events: only Events about this kind of object; !KIND leaves it out; repeatable
    #[arg(long, value_name = "KIND")]
    event_kinds: Vec<String>,
    /// With --watch-events: only Events of this namespace; !NAMESPACE leaves it out; repeatable
    #[arg(long, value_name = "NAMESPACE")]
    event_namespaces: Vec<String>,
    /// With --watch-events: only Events of this reason; !REASON leaves it out; repeatable
    #[arg(long, value_name = "REASON")]
    event_reasons: Vec<String>,
}

/// Flags of roles that need rules.
#[derive(Args, Debug, Clone, Default)]
pub struct RulesFlags {
    /// Where Alerts, Providers and Secrets are: a folder, or `cluster` for the Kubernetes API
    /// (./cluster is a folder)
    #[arg(long, value_name = "DIR|cluster")]
    rules: Option<String>,
    /// A namespace of the cluster whose rules count; repeatable. Without it, those of all
    /// namespaces
    #[arg(long, value_name = "NAMESPACE")]
    watch_namespace: Vec<String>,
    /// The labels of the cluster's Alerts and Providers that count
    #[arg(long, value_name = "SELECTOR")]
    watch_label_selector: Option<String>,
    /// Refuse events from other namespaces than the Alert's
    #[arg(long)]
    no_cross_namespace_refs: bool,
    /// A namespace whose Alerts may say `namespace: "*"`; repeatable
    #[arg(long, value_name = "NAMESPACE")]
    namespace_wildcard_for: Vec<String>,
}

/// Flags of roles that plan deliveries.
#[derive(Args, Debug, Clone, Default)]
pub struct RouterFlags {
    /// Leave the finalizer of notification-controller on Alerts and Providers that are being
    /// deleted
    #[arg(long)]
    no_release_finalizers: bool,
}

/// Flags of roles that deliver.
#[derive(Args, Debug, Clone, Default)]
pub struct WorkerFlags {
    /// A pool to serve; repeatable
    #[arg(long, value_name = "NAME")]
    pool: Vec<String>,
}

/// What becomes flags of the settings.
pub trait AsFlags {
    /// Each as it was given.
    fn flags(&self) -> Vec<Flag>;
}

impl AsFlags for CommonFlags {
    fn flags(&self) -> Vec<Flag> {
        let given = [
            ("--nats", "nats.url", &self.nats),
            ("--admin", "admin", &self.admin),
            ("--log-level", "log.filter", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        given
            .into_iter()
            .filter_map(|(name, key, value)| Some(flag(name, key, value.as_ref()?)))
            .collect()
    }
}

impl AsFlags for KubernetesFlags {
    fn flags(&self) -> Vec<Flag> {
        self.kubeconfig
            .iter()
            .map(|file| flag("--kubeconfig", "kubernetes.kubeconfig", file))
            .collect()
    }
}

impl AsFlags for IngestFlags {
    fn flags(&self) -> Vec<Flag> {
        let given = [
            ("--listen", "listen", &self.listen),
            ("--cluster", "cluster", &self.cluster),
            (
                "--dedupe-interval",
                "ingest.dedupe_interval",
                &self.dedupe_interval,
            ),
        ];
        let switches = [
            (
                "--watch-events",
                "ingest.kubernetes_events.watch",
                self.watch_events,
            ),
            (
                "--watch-flux-objects",
                "ingest.kubernetes_events.flux_objects",
                self.watch_flux_objects,
            ),
        ];
        let lists = [
            ("--label-kinds", "ingest.label_kinds", &self.label_kinds),
            (
                "--event-types",
                "ingest.kubernetes_events.types",
                &self.event_types,
            ),
            (
                "--event-kinds",
                "ingest.kubernetes_events.kinds",
                &self.event_kinds,
            ),
            (
                "--event-namespaces",
                "ingest.kubernetes_events.namespaces",
                &self.event_namespaces,
            ),
            (
                "--event-reasons",
                "ingest.kubernetes_events.reasons",
                &self.event_reasons,
            ),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, key, value)| Some(flag(name, key, value.as_ref()?)));
        let switches = switches
            .into_iter()
            .filter(|(_, _, is_given)| *is_given)
            .map(|(name, key, _)| flag(name, key, "true"));
        let lists = lists
            .into_iter()
            .flat_map(|(name, key, values)| values.iter().map(move |value| flag(name, key, value)));
        given.chain(switches).chain(lists).collect()
    }
}

impl AsFlags for RulesFlags {
    fn flags(&self) -> Vec<Flag> {
        let from = self.rules.as_ref().map(|from| {
            let key = if from == "cluster" {
                "rules.from"
            } else {
                "rules.dir"
            };
            flag("--rules", key, from)
        });
        let refuse = self.no_cross_namespace_refs.then(|| {
            flag(
                "--no-cross-namespace-refs",
                "rules.no_cross_namespace_refs",
                "true",
            )
        });
        let selector = self.watch_label_selector.iter();
        let selector = selector
            .map(|selector| flag("--watch-label-selector", "rules.label_selector", selector));
        let watched = |namespace: &String| flag("--watch-namespace", "rules.namespaces", namespace);
        let wildcard = |namespace: &String| {
            flag(
                "--namespace-wildcard-for",
                "rules.namespace_wildcard_for",
                namespace,
            )
        };
        let mut flags: Vec<_> = from.into_iter().chain(refuse).chain(selector).collect();
        flags.extend(self.watch_namespace.iter().map(watched));
        flags.extend(self.namespace_wildcard_for.iter().map(wildcard));
        flags
    }
}

impl AsFlags for RouterFlags {
    fn flags(&self) -> Vec<Flag> {
        let keep = self.no_release_finalizers.then(|| {
            flag(
                "--no-release-finalizers",
                "router.release_finalizers",
                "false",
            )
        });
        keep.into_iter().collect()
    }
}

impl AsFlags for WorkerFlags {
    fn flags(&self) -> Vec<Flag> {
        self.pool
            .iter()
            .map(|pool| flag("--pool", "worker.pools", pool))
            .collect()
    }
}

/// A flag with its key and value.
pub fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag {
        name: name.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Reads all layers.
///
/// # Errors
/// All mistakes together.
pub fn settings(common: &CommonFlags, flags: Vec<Flag>) -> anyhow::Result<Settings> {
    let flags = common.flags().into_iter().chain(flags).collect();
    let sources = Sources {
        file: common.config.clone(),
        environment: environment(),
        flags,
    };
    Ok(Settings::load(&sources)?)
}
