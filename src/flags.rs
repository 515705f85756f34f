//! The flags of the roles. Flags become settings and override every other layer.

use std::path::PathBuf;

use clap::Args;
use tidings_core::runtime::config::{Flag, Settings, Sources, environment};

/// The flag of tools that use settings, but not the bus.
#[derive(Args, Debug, Clone, Default)]
pub struct FileFlag {
    /// YAML file of settings; environment variables (TIDINGS_…) and flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Flags of tools that use the bus.
#[derive(Args, Debug, Clone, Default)]
pub struct BusFlags {
    #[command(flatten)]
    file: FileFlag,
    /// NATS server URLs, comma-separated
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
}

/// Flags of every role.
#[derive(Args, Debug, Clone, Default)]
pub struct CommonFlags {
    #[command(flatten)]
    bus: BusFlags,
    /// Address of /livez, /readyz and /metrics [default: port 8080, for router 8081, for worker
    /// 8082, for bridge 8083; in a pod on every interface, else on 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Log level, or comma-separated target=level pairs [default: info]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags for the Kubernetes API, which every role can use.
#[derive(Args, Debug, Clone, Default)]
pub struct KubernetesFlags {
    /// kubeconfig file of the cluster [default: the first of $KUBECONFIG, ~/.kube/config, and the
    /// cluster that this process runs in]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
}

/// Flags of roles that accept events.
#[derive(Args, Debug, Clone, Default)]
pub struct IngestFlags {
    /// Address to accept events on [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Name of the cluster that the events come from [default: default]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// How long an equal event is rejected as a duplicate [default: 5m]
    #[arg(long, alias = "rate-limit-interval", value_name = "DURATION")]
    dedupe_interval: Option<String>,
    /// Post a copy of each stored event to this URL, in the background
    #[arg(long, value_name = "URL")]
    tee: Option<String>,
    /// Kind of objects whose labels are read for matchLabels, such as Deployment.apps; repeatable
    /// [default: Flux's kinds]
    #[arg(long, value_name = "KIND")]
    label_kinds: Vec<String>,
    /// Accept the cluster's Kubernetes Events too; one replica at a time watches them
    #[arg(long)]
    watch_events: bool,
    /// With --watch-events: include Events about Flux objects; Flux also posts them itself
    #[arg(long)]
    watch_flux_objects: bool,
    /// With --watch-events: type of Event to include, Warning or Normal; repeatable [default:
    /// Warning]
    #[arg(long, value_name = "TYPE")]
    event_types: Vec<String>,
    /// With --watch-events: kind of object to include, or !KIND to exclude; repeatable [default:
    /// all]
    #[arg(long, value_name = "KIND")]
    event_kinds: Vec<String>,
    /// With --watch-events: namespace to include, or !NAMESPACE to exclude; repeatable [default:
    /// all]
    #[arg(long, value_name = "NAMESPACE")]
    event_namespaces: Vec<String>,
    /// With --watch-events: reason to include, or !REASON to exclude; repeatable [default: all]
    #[arg(long, value_name = "REASON")]
    event_reasons: Vec<String>,
}

/// Flags of roles that use rules.
#[derive(Args, Debug, Clone, Default)]
pub struct RulesFlags {
    /// Folder of Alerts, Providers and Secrets, or `cluster` to read them from the Kubernetes API
    /// (for a folder of that name, use ./cluster), or `cluster=NAME:KUBECONFIG[#CONTEXT]` for those
    /// of a member of the fleet; repeatable; required
    #[arg(long, value_name = "DIR|cluster")]
    rules: Vec<String>,
    /// With --rules cluster: namespace to read Alerts and Providers from; repeatable [default: all]
    #[arg(long, value_name = "NAMESPACE")]
    watch_namespace: Vec<String>,
    /// With --rules cluster: label selector for Alerts and Providers to read [default: all]
    #[arg(long, value_name = "SELECTOR")]
    watch_label_selector: Option<String>,
    /// Reject references from Alerts to other namespaces
    #[arg(long)]
    no_cross_namespace_refs: bool,
    /// Namespace whose Alerts may use `namespace: "*"`; repeatable
    #[arg(long, value_name = "NAMESPACE")]
    namespace_wildcard_for: Vec<String>,
    /// Give Alerts only events of the local cluster, which the setting `cluster` names
    #[arg(long)]
    local_cluster_only: bool,
}

/// Flags of roles that route events.
#[derive(Args, Debug, Clone, Default)]
pub struct RouterFlags {
    /// Do not remove the finalizer of notification-controller from deleted Alerts and Providers
    #[arg(long)]
    no_release_finalizers: bool,
    /// Address of the console, a web page that shows what happens; without ADDR 127.0.0.1:8090
    /// [default: no console]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:8090")]
    console: Option<String>,
}

/// Flags of roles that make deliveries.
#[derive(Args, Debug, Clone, Default)]
pub struct WorkerFlags {
    /// Pool to make deliveries for; repeatable [default: default]
    #[arg(long, value_name = "NAME")]
    pool: Vec<String>,
}

/// The flag of roles that can run in shadow mode.
#[derive(Args, Debug, Clone, Default)]
pub struct ShadowFlags {
    /// Record what would be delivered, and send nothing; set it for every router and worker
    #[arg(long)]
    shadow: bool,
}

/// A group of flags that set settings.
pub trait AsFlags {
    /// The flags that were given, each with its key and value.
    fn flags(&self) -> Vec<Flag>;
}

/// The flags that every command of a kind has.
pub trait BaseFlags: AsFlags {
    /// The settings file.
    fn file(&self) -> Option<&PathBuf>;
}

impl BaseFlags for FileFlag {
    fn file(&self) -> Option<&PathBuf> {
        self.config.as_ref()
    }
}

impl BaseFlags for BusFlags {
    fn file(&self) -> Option<&PathBuf> {
        self.file.file()
    }
}

impl BaseFlags for CommonFlags {
    fn file(&self) -> Option<&PathBuf> {
        self.bus.file()
    }
}

impl AsFlags for FileFlag {
    fn flags(&self) -> Vec<Flag> {
        Vec::new()
    }
}

impl AsFlags for BusFlags {
    fn flags(&self) -> Vec<Flag> {
        let nats = self.nats.iter();
        nats.map(|url| flag("--nats", "nats.url", url)).collect()
    }
}

impl AsFlags for CommonFlags {
    fn flags(&self) -> Vec<Flag> {
        let given = [
            ("--admin", "admin", &self.admin),
            ("--log-level", "log.filter", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, key, value)| Some(flag(name, key, value.as_ref()?)));
        self.bus.flags().into_iter().chain(given).collect()
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
            ("--tee", "ingest.tee.url", &self.tee),
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
        let has_several = self.rules.len() > 1;
        let source = self.rules.iter().map(|source| {
            let key = match source.as_str() {
                _ if has_several => "rules.sources",
                source if source.starts_with("cluster=") => "rules.sources",
                "cluster" => "rules.from",
                _ => "rules.dir",
            };
            flag("--rules", key, source)
        });
        let reject = self.no_cross_namespace_refs.then(|| {
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
        let local = self
            .local_cluster_only
            .then(|| flag("--local-cluster-only", "rules.local_cluster_only", "true"));
        let switches = reject.into_iter().chain(local);
        let mut flags: Vec<_> = source.chain(switches).chain(selector).collect();
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
        let console = self.console.iter();
        let console = console.map(|address| flag("--console", "console.listen", address));
        keep.into_iter().chain(console).collect()
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

impl AsFlags for ShadowFlags {
    fn flags(&self) -> Vec<Flag> {
        let shadow = self.shadow.then(|| flag("--shadow", "shadow", "true"));
        shadow.into_iter().collect()
    }
}

/// A flag that sets `key`; `name` appears in errors.
pub fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag {
        name: name.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Reads the settings from all layers.
///
/// # Errors
/// All invalid settings, together.
pub fn settings(base: &impl BaseFlags, flags: Vec<Flag>) -> anyhow::Result<Settings> {
    let flags = base.flags().into_iter().chain(flags).collect();
    let sources = Sources {
        file: base.file().cloned(),
        environment: environment(),
        flags,
    };
    Ok(Settings::load(&sources)?)
}
