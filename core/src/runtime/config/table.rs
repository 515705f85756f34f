//! Every setting, as `docs/reference/configuration.md` lists it.
//!
//! One entry for each setting: the reader takes the default from here, and the docs the rest. A
//! test compares the keys with those that the reader takes.

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file and in errors, such as `nats.url`.
    pub key: &'static str,
    /// The value if no layer sets the key.
    pub default: DefaultValue,
    /// The flag that sets it, such as `--nats URL`; empty where there is none.
    pub flag: &'static str,
    /// The roles and tools that use it.
    pub used_by: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// The value of a setting that no layer sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value, as the file writes it; lists with commas.
    Value(&'static str),
    /// The value that the text describes. The setting stays unset, or depends on the machine.
    Otherwise(&'static str),
}

impl Setting {
    /// The environment variable: `TIDINGS_NATS__URL` for `nats.url`.
    pub fn variable(&self) -> String {
        format!("TIDINGS_{}", self.key.to_uppercase().replace('.', "__"))
    }
}

/// The default of a setting as the file writes it, if it has one.
pub(super) fn default_of(key: &str) -> Option<&'static str> {
    let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
    match setting.default {
        Value(text) => Some(text),
        Otherwise(_) => None,
    }
}

const EVERYTHING: &str = "all roles, tools";
const ROLES: &str = "all roles";
const INGEST: &str = "up, ingest";
const ROUTER: &str = "up, router";
const WORKER: &str = "up, worker";
const RULES: &str = "up, router, worker";
const NOTICES: &str = "up, router, check";

macro_rules! settings {
    ($($key:literal, $default:expr, $flag:literal, $used_by:expr, $meaning:literal;)*) => {
        /// Every setting, in the order of the docs.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            default: $default,
            flag: $flag,
            used_by: $used_by,
            meaning: $meaning,
        }),*];
    };
}

use self::DefaultValue::{Otherwise, Value};

settings! {
    "cluster", Value("default"), "--cluster NAME", "up, ingest, router",
        "Name of the cluster that ingest sets on every event. Senders cannot choose it. The \
         router uses it for `rules.local_cluster_only`.";
    "listen", Value("127.0.0.1:9090"), "--listen ADDR", INGEST,
        "Address of the event endpoint.";
    "admin", Otherwise(
            "port 8080 (up, ingest), 8081 (router), 8082 (worker) or 8083 (bridge); in a pod on \
             every interface, else on `127.0.0.1`",
        ),
        "--admin ADDR", ROLES, "Address of `/livez`, `/readyz` and `/metrics`.";
    "data", Value(".tidings"), "--data DIR", "up, ingest, tools",
        "Folder of `up` and of an edge: the data of its nats-server, and `nats.json`, in which \
         tools find its address.";
    "shutdown_grace", Value("10s"), "", ROLES,
        "How long unfinished work may continue after SIGTERM.";
    "memory.limit",
        Otherwise(
            "the limit of the cgroup, else a quarter of the machine's memory, at most 2 GiB",
        ), "", ROLES,
        "Memory that the process may use, at least 128 MiB; in `up` together with its \
         nats-server. See [memory](../operations.md#memory).";
    "shadow", Value("false"), "--shadow", RULES,
        "Record what would have been delivered, and send nothing: see \
         [migration](../migrate.md). Set it for every router and worker.";
    "log.filter", Value("info"), "--log-level FILTER", ROLES,
        "A level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module: \
         `info,tidings_workers=debug`.";
    "log.format", Value("text"), "--log-format FORMAT", ROLES, "`text` or `json`.";
    "otlp.endpoint", Otherwise("none: no traces"), "", ROLES,
        "Address of a collector that takes OTLP over HTTP, such as `http://collector:4318`; \
         `/v1/traces` is added. See [traces](../operations.md#traces).";
    "otlp.sampling", Value("1.0"), "", ROLES,
        "Part of the traces that is recorded, from 0 to 1. A `traceparent` of the sender decides \
         instead.";
    "otlp.headers", Otherwise("none"), "", ROLES,
        "Headers of each request to the collector: `NAME=VALUE` separated by commas, with \
         percent-encoded values.";
    "otlp.headers_file", Otherwise("none"), "", ROLES,
        "File that holds these headers, read at the start.";
    "nats.url", Otherwise("none; `up` starts its own server"), "--nats URL", EVERYTHING,
        "Addresses of the NATS servers, separated by commas.";
    "nats.username", Otherwise("none"), "", EVERYTHING, "User name; needs `nats.password`.";
    "nats.password", Otherwise("none"), "", EVERYTHING, "Password; needs `nats.username`.";
    "nats.password_file", Otherwise("none"), "", EVERYTHING, "File that holds the password.";
    "nats.token", Otherwise("none"), "", EVERYTHING, "Token.";
    "nats.token_file", Otherwise("none"), "", EVERYTHING, "File that holds the token.";
    "nats.credentials", Otherwise("none"), "", EVERYTHING, "Credentials file as `nsc` writes it.";
    "nats.tls.required", Value("false"), "", EVERYTHING, "Reject servers that do not offer TLS.";
    "nats.tls.ca", Otherwise("the system's authorities"), "", EVERYTHING,
        "PEM file with the certificate authorities of the servers.";
    "nats.tls.cert", Otherwise("none"), "", EVERYTHING,
        "PEM file with the client certificate; needs `nats.tls.key`.";
    "nats.tls.key", Otherwise("none"), "", EVERYTHING,
        "PEM file with the key of the client certificate.";
    "nats.storage_limit",
        Otherwise(
            "the limit of the NATS account; `up` and an edge: three quarters of the free disk, at \
             most 40 GiB",
        ), "", ROLES, "Storage that the streams may use in all; for an edge, on its own server.";
    "nats.replicas", Value("1"), "", RULES,
        "Copies of each stream: 1 or, on a NATS cluster, 3 or 5.";
    "kubernetes.kubeconfig",
        Otherwise("`KUBECONFIG`, else `~/.kube/config`, else the pod's service account"),
        "--kubeconfig FILE", ROLES, "Kubeconfig of the cluster.";
    "kubernetes.namespace", Otherwise("the pod's, else the one of the kubeconfig's context"), "",
        ROLES, "Namespace of the Leases that Tidings creates.";
    "rules.from", Otherwise("none; set this, `rules.dir` or `rules.sources`"), "--rules cluster",
        RULES, "`cluster`: read rules from the Kubernetes API.";
    "rules.dir", Otherwise("none"), "--rules DIR", RULES, "Folder of manifests to read rules from.";
    "rules.sources", Otherwise("none"), "--rules SOURCE", RULES,
        "[Several sources](../fleet.md#rules-from-several-clusters) of rules: a folder, `cluster`, \
         and `cluster=NAME:FILE` or `cluster=NAME:FILE#CONTEXT` for each member, with its \
         kubeconfig.";
    "rules.namespaces", Otherwise("all namespaces"), "--watch-namespace NAMESPACE", RULES,
        "Namespaces of clusters whose rules are read.";
    "rules.label_selector", Otherwise("none"), "--watch-label-selector SELECTOR", RULES,
        "Label selector for the Alerts and Providers of clusters.";
    "rules.no_cross_namespace_refs", Value("false"), "--no-cross-namespace-refs", ROUTER,
        "Give an Alert only events of its own namespace.";
    "rules.namespace_wildcard_for", Otherwise("none"), "--namespace-wildcard-for NAMESPACE", ROUTER,
        "Namespaces whose Alerts may set `namespace: \"*\"` for all namespaces.";
    "rules.local_cluster_only", Value("false"), "--local-cluster-only", ROUTER,
        "Give an Alert only events of the cluster that the setting `cluster` names.";
    "ingest.dedupe_interval", Value("5m"), "--dedupe-interval DURATION",
        "up, ingest, router, worker",
        "How long the same event is a duplicate. A property of the stream `EVENTS`: set it for \
         router and worker too. `--rate-limit-interval` is the same flag.";
    "ingest.connections",
        Otherwise("1024; fewer with little memory, or with few file descriptors"), "", INGEST,
        "Connections to the event endpoint at a time.";
    "ingest.tls.cert", Otherwise("none: HTTP without TLS"), "", INGEST,
        "PEM file with the certificate of the event endpoint and its intermediate certificates; \
         needs `ingest.tls.key`. Read again when it changes.";
    "ingest.tls.key", Otherwise("none"), "", INGEST,
        "PEM file with the key of the certificate. Read again when it changes.";
    "ingest.auth.tokens", Otherwise("none"), "", INGEST,
        "File with a line `NAME TOKEN` for each bearer token that senders may use, where NAME has \
         at most 15 characters, or folder with a file for each. Read again when it changes. See \
         [security](../security.md#senders-of-events).";
    "ingest.auth.token_review.enabled", Value("false"), "", INGEST,
        "Accept bearer tokens of service accounts, which the Kubernetes API reviews (TokenReview). \
         What is not a JSON Web Token for one of the audiences is refused without a review.";
    "ingest.auth.token_review.audiences", Value("tidings"), "", INGEST,
        "Audiences, of which a token must have one.";
    "ingest.auth.token_review.users", Otherwise("all users"), "", INGEST,
        "Users whose tokens are accepted, as globs: `*` matches any text, `?` one character, such \
         as `system:serviceaccount:flux-system:*`.";
    "ingest.edge", Value("false"), "--edge", "ingest",
        "Store events on an own nats-server in `data`, and forward them to the hub at `nats.url`, \
         so that they are accepted while the hub cannot be reached. See \
         [edges](../fleet.md#a-member-that-can-lose-the-hub).";
    "ingest.tee.url", Otherwise("none"), "--tee URL", INGEST,
        "Post a copy of each stored event to this URL, in the background. See \
         [migration](../migrate.md#the-tee).";
    "ingest.labels", Otherwise("true where a kubeconfig or a service account is found"), "", INGEST,
        "Read the labels of the objects that events are about.";
    "ingest.label_kinds", Otherwise("[the kinds of Flux](../kubernetes.md#labels)"),
        "--label-kinds KIND", INGEST, "Kinds of objects whose labels are read.";
    "ingest.kubernetes_events.watch", Value("false"), "--watch-events", INGEST,
        "Read the cluster's Kubernetes Events. Only one replica reads them.";
    "ingest.kubernetes_events.flux_objects", Value("false"), "--watch-flux-objects", INGEST,
        "Also read Events about Flux's objects, which Flux posts itself.";
    "ingest.kubernetes_events.types", Value("Warning"), "--event-types TYPE", INGEST,
        "Types of Events: `Warning`, `Normal`; `!TYPE` excludes one.";
    "ingest.kubernetes_events.kinds", Otherwise("all"), "--event-kinds KIND", INGEST,
        "Kinds of the objects; `!KIND` excludes one.";
    "ingest.kubernetes_events.namespaces", Otherwise("all"), "--event-namespaces NAMESPACE", INGEST,
        "Namespaces of the Events; `!NAMESPACE` excludes one.";
    "ingest.kubernetes_events.reasons", Otherwise("all"), "--event-reasons REASON", INGEST,
        "Reasons of the Events; `!REASON` excludes one.";
    "ingest.kubernetes_events.severities", Otherwise("`Warning`: error, `Normal`: info"), "",
        INGEST,
        "Severities by reason or type, such as `BackOff=warn`.";
    "ingest.kubernetes_events.repeat_interval", Value("5m"), "", INGEST,
        "An Event whose count increases is a new event once in this time.";
    "ingest.kubernetes_events.lease", Value("tidings-events"), "", INGEST,
        "Name of the Lease that decides which replica reads Events.";
    "router.concurrency", Value("256"), "", ROUTER, "Events processed at a time.";
    "router.release_finalizers", Value("true"), "--no-release-finalizers", ROUTER,
        "Remove the finalizer of notification-controller from objects that are being deleted.";
    "worker.pools", Value("default"), "--pool NAME", WORKER, "Pools whose deliveries are made.";
    "worker.concurrency", Value("512"), "", WORKER,
        "Concurrent attempts for each provider type of each pool.";
    "worker.addresses.allow", Otherwise("none"), "", WORKER,
        "Networks that providers and their proxies may be in, such as `10.1.2.3` or `10.0.0.0/8`.";
    "worker.addresses.deny", Otherwise("none"), "", WORKER,
        "Networks that providers and their proxies may not be in.";
    "worker.addresses.loopback", Otherwise("`false` in a pod, else `true`"), "", WORKER,
        "Allow providers on loopback addresses.";
    "links.enabled", Value("false"), "", WORKER,
        "Add links to messages, unless the Provider has `links: false`.";
    "links.commit", Otherwise("from the event's repository"), "", WORKER,
        "Template for the link to a commit.";
    "links.dashboard", Otherwise("none"), "", WORKER, "Template for the link to a dashboard.";
    "links.commit_status", Otherwise("none"), "", WORKER,
        "Template for the link of commit statuses.";
    "console.listen", Otherwise("none: no console"), "--console ADDR", ROUTER,
        "Address of the [console](../console.md), such as `127.0.0.1:8090`. An address that is not \
         loopback needs tokens.";
    "console.hosts", Otherwise("`localhost`, and IP addresses"), "", ROUTER,
        "Names under which browsers reach the console, such as `tidings.example.com`. Requests for \
         other names are refused.";
    "console.tls.cert", Otherwise("none: HTTP without TLS"), "", ROUTER,
        "PEM file with the certificate of the console and its intermediate certificates; needs \
         `console.tls.key`. Read again when it changes.";
    "console.tls.key", Otherwise("none"), "", ROUTER,
        "PEM file with the key of the certificate. Read again when it changes.";
    "console.tokens.view", Otherwise("none; without any token everybody who reaches it may read"),
        "", ROUTER,
        "Bearer tokens that may read, in a file or folder as for `ingest.auth.tokens`. Read again \
         when it changes.";
    "console.tokens.operate", Otherwise("none"), "", ROUTER,
        "Bearer tokens that may read, and change something, in a file or folder as for \
         `ingest.auth.tokens`. Read again when it changes.";
    "console.kubernetes.enabled", Value("false"), "", ROUTER,
        "Accept bearer tokens that the Kubernetes API knows (TokenReview). What their users see \
         and may do is decided by their rights to `get` and `update` `alerts` and `providers` \
         (SubjectAccessReview). See [the console](../console.md#with-kubernetes).";
    "console.kubernetes.audiences", Value("tidings-console"), "", ROUTER,
        "Audiences, of which a token must have one.";
    "watchdog.provider", Otherwise("none: no watchdog"), "", NOTICES,
        "Provider, as `namespace/name`, that gets a notice in each interval while notifications \
         work. A monitor that expects them raises an alarm when they end. See \
         [operations](../operations.md#when-tidings-itself-fails).";
    "watchdog.interval", Value("5m"), "", NOTICES,
        "How often the watchdog's notice is sent, from `1s` to `24h`.";
    "fallback.provider", Otherwise("none: no fallback"), "", NOTICES,
        "Provider, as `namespace/name`, that gets a notice of dead letters, and of circuits that \
         stay open. Choose another service than those of your other Providers.";
    "fallback.interval", Value("15m"), "", NOTICES,
        "At most one notice of the fallback is sent in this time, from `1s` to `24h`.";
    "fallback.circuit_open_for", Value("15m"), "", NOTICES,
        "How long a circuit must be open before the fallback reports it, from `1s` to `24h`.";
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::{Settings, Sources};
    use super::*;

    #[test]
    fn the_table_has_exactly_the_keys_that_the_reader_takes() {
        let mut listed: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        listed.sort_unstable();
        assert_eq!(listed, Settings::keys());
    }

    #[test]
    fn every_default_can_be_read() {
        let defaults = Settings::load(&Sources::default()).unwrap();
        let defaults = serde_json::to_value(defaults.redacted()).unwrap();
        for setting in SETTINGS {
            let names = setting.key.split('.');
            let default = names.fold(&defaults, |value, name| &value[name]);
            match (setting.default, default) {
                (Value(text), Json::String(value)) => assert_eq!(text, value, "{}", setting.key),
                (Value(text), Json::Array(values)) => {
                    assert_eq!(text.split(',').count(), values.len(), "{}", setting.key);
                }
                (Value(text), value) => assert_eq!(text, value.to_string(), "{}", setting.key),
                (Otherwise(_), _) => {}
            }
        }
    }
}
