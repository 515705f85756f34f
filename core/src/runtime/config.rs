//! The settings of every role, from layers: defaults < file (YAML) < environment < flags.
//!
//! A key is written `nats.url` in messages, nested in the file, `TIDINGS_NATS__URL` in the
//! environment. All mistakes are reported together, and unknown keys are mistakes. This is the only
//! place that reads the environment.
//!
//! Every secret can be given by file too (`nats.password_file`), and none shows in `Debug`,
//! [`Settings::redacted`] or a mistake.

mod addresses;
mod ingest;
mod layer;
mod read;
mod secret;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use addresses::AddressSettings;
pub use ingest::{IngestSettings, KubernetesEventsSettings, Severity};
pub use layer::{Flag, Origin, Sources, environment};
pub use read::{Mistake, Mistakes};
pub use secret::{Secret, Servers};

use read::Reader;
use secret::Login;

use crate::bus::streams::Sizing;
use crate::runtime::telemetry::LogFormat;

/// What a process can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// `cluster`: the name that ingest stamps on every event.
    pub cluster: String,
    /// `listen`: where events are taken.
    pub listen: SocketAddr,
    /// `admin`: where metrics and readiness are served. See [`Settings::admin_for`].
    pub admin: Option<SocketAddr>,
    /// `data`: the folder of `up`: the embedded server's store and `nats.json`.
    pub data: PathBuf,
    /// `shutdown_grace`: how long what is under way may take at the end.
    #[serde(serialize_with = "value::write_duration")]
    pub shutdown_grace: Duration,
    /// `log.…`
    pub log: LogSettings,
    /// `nats.…`
    pub nats: NatsSettings,
    /// `kubernetes.…`
    pub kubernetes: KubernetesSettings,
    /// `rules.…`
    pub rules: RulesSettings,
    /// `ingest.…`
    pub ingest: IngestSettings,
    /// `router.…`
    pub router: RouterSettings,
    /// `worker.…`
    pub worker: WorkerSettings,
    /// `links.…`
    pub links: LinksSettings,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// `log.filter`: a level, or `target=level` pairs with commas.
    pub filter: String,
    /// `log.format`: text or json.
    pub format: LogFormat,
}

/// The way to the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NatsSettings {
    /// `nats.url`: the servers, with commas between them. `up` starts its own server when there is
    /// none.
    pub url: Option<Servers>,
    /// `nats.username`
    pub username: Option<String>,
    /// `nats.password`, `nats.password_file`
    pub password: Option<Secret>,
    /// `nats.token`, `nats.token_file`
    pub token: Option<Secret>,
    /// `nats.credentials`: a file as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// `nats.tls.…`
    pub tls: TlsSettings,
    /// `nats.storage_limit`: what the streams may take on disk, in bytes.
    pub storage_limit: Option<u64>,
    /// `nats.replicas`: copies of each stream, 1 or, on a cluster, 3 or 5.
    pub replicas: usize,
}

/// Encryption on the way to the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsSettings {
    /// `nats.tls.required`: refuse a server that does not offer it.
    pub required: bool,
    /// `nats.tls.ca`: certificates of authorities, as PEM.
    pub ca: Option<PathBuf>,
    /// `nats.tls.cert`: the client's certificate, as PEM.
    pub cert: Option<PathBuf>,
    /// `nats.tls.key`: its key, as PEM.
    pub key: Option<PathBuf>,
}

/// The way to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesSettings {
    /// `kubernetes.kubeconfig`: a kubeconfig; else the cluster that we run in, or the user's own
    /// file.
    pub kubeconfig: Option<PathBuf>,
    /// `kubernetes.namespace`: where our own objects (Leases) are; else the namespace that we run
    /// in.
    pub namespace: Option<String>,
}

/// Where the rules are, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RulesSettings {
    /// `rules.from` or `rules.dir`: where they are.
    pub from: Option<RulesFrom>,
    /// `rules.namespaces`: of a cluster the namespaces that count; all where none is named.
    pub namespaces: Vec<String>,
    /// `rules.label_selector`: of a cluster the Alerts and Providers that count.
    pub label_selector: Option<String>,
    /// `rules.no_cross_namespace_refs`: an Alert sees its own namespace only.
    pub no_cross_namespace_refs: bool,
    /// `rules.namespace_wildcard_for`: the namespaces whose Alerts may say `namespace: "*"`.
    pub namespace_wildcard_for: Vec<String>,
}

/// Where rules come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesFrom {
    /// The Kubernetes API.
    Cluster,
    /// A folder of manifests.
    Dir(PathBuf),
}

/// How events are routed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterSettings {
    /// `router.concurrency`: how many events are under way at a time.
    pub concurrency: usize,
    /// `router.release_finalizers`: objects whose deletion waits for notification-controller are
    /// released.
    pub release_finalizers: bool,
}

/// How deliveries are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerSettings {
    /// `worker.pools`: whose deliveries are made.
    pub pools: Vec<String>,
    /// `worker.concurrency`: how many attempts are under way at a time.
    pub concurrency: usize,
    /// `worker.addresses.…`
    pub addresses: AddressSettings,
}

/// Links in messages and commit statuses. A pattern is a template whose values are percent-encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinksSettings {
    /// `links.enabled`: messages get links, unless the Provider says `links: false`.
    pub enabled: bool,
    /// `links.commit`: a pattern for the address of a commit, where it does not follow from the
    /// event's repository.
    pub commit: Option<String>,
    /// `links.dashboard`: a pattern for the address of a dashboard.
    pub dashboard: Option<String>,
    /// `links.commit_status`: a pattern for the address that commit statuses link to.
    pub commit_status: Option<String>,
}

/// What a process does, as far as settings depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All of them.
    Up,
    /// Takes events.
    Ingest,
    /// Plans deliveries.
    Router,
    /// Makes deliveries.
    Worker,
}

impl Settings {
    /// Reads every layer.
    ///
    /// # Errors
    /// All mistakes of all layers, each with its key, where it came from and what is expected
    /// there.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let settings = Self::read(&mut reader);
        reader.finish().map(|()| settings)
    }

    /// How the streams are sized.
    pub fn sizing(&self) -> Sizing {
        Sizing {
            dedupe_interval: self.ingest.dedupe_interval,
            storage_limit: self.nats.storage_limit,
            replicas: self.nats.replicas,
        }
    }

    /// Where this role serves metrics and readiness.
    pub fn admin_for(&self, role: Role) -> SocketAddr {
        let port = match role {
            Role::Up | Role::Ingest => 8080,
            Role::Router => 8081,
            Role::Worker => 8082,
        };
        self.admin
            .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The settings to print: without secrets.
    pub fn redacted(&self) -> impl Serialize + '_ {
        // Secret and Servers write themselves without what is secret.
        self
    }

    fn read(reader: &mut Reader) -> Self {
        Self {
            cluster: reader.or("cluster", "default".to_owned(), value::text),
            listen: reader.or(
                "listen",
                SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
                value::address,
            ),
            admin: reader.optional("admin", value::address),
            data: reader.or("data", PathBuf::from(".tidings"), value::path),
            shutdown_grace: reader.or("shutdown_grace", Duration::from_secs(10), value::duration),
            log: LogSettings {
                filter: reader.or("log.filter", "info".to_owned(), value::log_filter),
                format: reader.or("log.format", LogFormat::Text, value::log_format),
            },
            nats: NatsSettings::read(reader),
            kubernetes: KubernetesSettings {
                kubeconfig: reader.optional("kubernetes.kubeconfig", value::path),
                namespace: reader.optional("kubernetes.namespace", value::text),
            },
            rules: RulesSettings {
                from: reader.either(("rules.from", value::cluster), ("rules.dir", value::folder)),
                namespaces: reader.list("rules.namespaces", &[]),
                label_selector: reader.optional("rules.label_selector", value::text),
                no_cross_namespace_refs: reader.or(
                    "rules.no_cross_namespace_refs",
                    false,
                    value::switch,
                ),
                namespace_wildcard_for: reader.list("rules.namespace_wildcard_for", &[]),
            },
            ingest: IngestSettings::read(reader),
            router: RouterSettings {
                concurrency: reader.or("router.concurrency", 256, value::count),
                release_finalizers: reader.or("router.release_finalizers", true, value::switch),
            },
            worker: WorkerSettings {
                pools: reader.list("worker.pools", &["default"]),
                concurrency: reader.or("worker.concurrency", 256, value::count),
                addresses: AddressSettings::read(reader),
            },
            links: LinksSettings {
                enabled: reader.or("links.enabled", false, value::switch),
                commit: reader.optional("links.commit", value::text),
                dashboard: reader.optional("links.dashboard", value::text),
                commit_status: reader.optional("links.commit_status", value::text),
            },
        }
    }
}

impl NatsSettings {
    fn read(reader: &mut Reader) -> Self {
        let mut nats = Self {
            url: reader.optional_secret("nats.url", value::servers),
            username: reader.optional("nats.username", value::text),
            password: reader.secret("nats.password", "nats.password_file"),
            token: reader.secret("nats.token", "nats.token_file"),
            credentials: reader.optional("nats.credentials", value::path),
            tls: TlsSettings {
                required: reader.or("nats.tls.required", false, value::switch),
                ca: reader.optional("nats.tls.ca", value::path),
                cert: reader.optional("nats.tls.cert", value::path),
                key: reader.optional("nats.tls.key", value::path),
            },
            storage_limit: reader.optional("nats.storage_limit", value::size),
            replicas: reader.or("nats.replicas", 1, value::count),
        };
        reader.pair(
            "nats.username",
            "nats.password",
            nats.username.is_some(),
            nats.password.is_some(),
        );
        reader.pair(
            "nats.tls.cert",
            "nats.tls.key",
            nats.tls.cert.is_some(),
            nats.tls.key.is_some(),
        );
        let login = nats.url.as_ref().and_then(Servers::login).cloned();
        let ways = [
            nats.username.is_some(),
            nats.token.is_some(),
            nats.credentials.is_some(),
            login.is_some(),
        ];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            reader.mistake(
                "nats",
                "one of username, token, credentials and a login within the url, not several",
            );
        }
        match login {
            Some(Login::Password(username, password)) => {
                (nats.username, nats.password) = (Some(username), Some(password))
            }
            Some(Login::Token(token)) => nats.token = Some(token),
            None => {}
        }
        nats
    }
}
