//! The settings of every role, from layers: defaults < file (YAML) < environment < flags.
//!
//! A key is written `nats.url` in errors, nested in the file, `TIDINGS_NATS__URL` in the
//! environment. All mistakes are reported together, and unknown keys are mistakes. Only this module
//! reads the environment.
//!
//! Every secret can also be read from a file (`nats.password_file`). `Debug`,
//! [`Settings::redacted`] and mistakes never show a secret.
//!
//! A new setting is an entry in [`table`] (key, default, flag, meaning), a field here, and a line
//! in `read` that names its parser.

mod addresses;
mod changed;
mod console;
mod ingest;
mod layer;
mod mistake;
mod notices;
mod otlp;
mod pod;
mod read;
mod rules;
mod secret;
mod server;
pub mod table;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use addresses::AddressSettings;
pub use console::{ConsoleKubernetes, ConsoleSettings, ConsoleTokens};
pub use ingest::{
    AuthSettings, IngestSettings, KubernetesEventsSettings, TeeSettings, TokenReviewSettings,
};
pub use layer::{Flag, Sources, environment};
pub use mistake::{Mistake, Mistakes, Origin};
pub use notices::{FallbackSettings, ProviderName, WatchdogSettings};
pub use otlp::{OtlpSettings, Ratio, TRACES_PATH};
pub use rules::{MemberRules, RulesFrom, RulesSettings};
pub use secret::{Secret, Servers};
pub use server::ServerTlsSettings;
pub use value::Severity;

use read::Reader;
use secret::Login;

use crate::bus::streams::Sizing;
use crate::runtime::telemetry::LogFormat;

/// The settings of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// `cluster`: the name that ingest sets on every event.
    pub cluster: String,
    /// `listen`: the address of the event endpoint.
    pub listen: SocketAddr,
    /// `admin`: the address of metrics and readiness. See [`Settings::admin_for`].
    pub admin: Option<SocketAddr>,
    /// `data`: the folder of `up`, with the embedded server's data and `nats.json`.
    pub data: PathBuf,
    /// `shutdown_grace`: how long unfinished work may continue after SIGTERM.
    #[serde(serialize_with = "value::write_duration")]
    pub shutdown_grace: Duration,
    /// `memory.…`
    pub memory: MemorySettings,
    /// `shadow`: record what would be delivered, and send nothing.
    pub shadow: bool,
    /// `log.…`
    pub log: LogSettings,
    /// `otlp.…`
    pub otlp: OtlpSettings,
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
    /// `console.…`
    pub console: ConsoleSettings,
    /// `watchdog.…`
    pub watchdog: WatchdogSettings,
    /// `fallback.…`
    pub fallback: FallbackSettings,
}

/// Whether the user wants no colors (<https://no-color.org>).
pub fn wants_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// How much memory the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemorySettings {
    /// `memory.limit`: in bytes; default: that of the cgroup.
    pub limit: Option<u64>,
}

/// What is logged, and in which format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// `log.filter`: a level, or `target=level` pairs with commas.
    pub filter: String,
    /// `log.format`: text or json.
    pub format: LogFormat,
}

/// How to connect to the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NatsSettings {
    /// `nats.url`: the servers, separated by commas. Without it `up` starts its own server.
    pub url: Option<Servers>,
    /// `nats.username`
    pub username: Option<String>,
    /// `nats.password`, `nats.password_file`
    pub password: Option<Secret>,
    /// `nats.token`, `nats.token_file`
    pub token: Option<Secret>,
    /// `nats.credentials`: a credentials file as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// `nats.tls.…`
    pub tls: TlsSettings,
    /// `nats.storage_limit`: storage that the streams may use, in bytes.
    pub storage_limit: Option<u64>,
    /// `nats.replicas`: copies of each stream, 1 or, on a cluster, 3 or 5.
    pub replicas: usize,
}

/// TLS of the connection to the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsSettings {
    /// `nats.tls.required`: reject a server that does not offer TLS.
    pub required: bool,
    /// `nats.tls.ca`: certificate authorities, as PEM.
    pub ca: Option<PathBuf>,
    /// `nats.tls.cert`: the client certificate, as PEM.
    pub cert: Option<PathBuf>,
    /// `nats.tls.key`: the key of the client certificate, as PEM.
    pub key: Option<PathBuf>,
}

/// How to connect to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesSettings {
    /// `kubernetes.kubeconfig`: default: the user's kubeconfig, else the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// `kubernetes.namespace`: the namespace of our Leases; default: the pod's.
    pub namespace: Option<String>,
}

/// How events are routed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterSettings {
    /// `router.concurrency`: events processed at a time.
    pub concurrency: usize,
    /// `router.release_finalizers`: remove the finalizer of notification-controller from objects
    /// that are being deleted.
    pub release_finalizers: bool,
}

/// How workers make deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerSettings {
    /// `worker.pools`: the pools whose deliveries this worker makes.
    pub pools: Vec<String>,
    /// `worker.concurrency`: attempts at a time, for each provider type of each pool.
    pub concurrency: usize,
    /// `worker.addresses.…`
    pub addresses: AddressSettings,
}

/// Links in messages and commit statuses. Patterns are templates with percent-encoded values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinksSettings {
    /// `links.enabled`: add links to messages, unless the Provider has `links: false`.
    pub enabled: bool,
    /// `links.commit`: link to a commit; default: derived from the event's repository.
    pub commit: Option<String>,
    /// `links.dashboard`: link to a dashboard.
    pub dashboard: Option<String>,
    /// `links.commit_status`: the link of commit statuses.
    pub commit_status: Option<String>,
}

/// A role, for the defaults that depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All roles in one process.
    Up,
    /// Accepts events.
    Ingest,
    /// Plans deliveries.
    Router,
    /// Makes attempts.
    Worker,
    /// Forwards events as CloudEvents.
    Bridge,
}

impl Role {
    /// The name of the command that starts it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ingest => "ingest",
            Self::Router => "router",
            Self::Worker => "worker",
            Self::Bridge => "bridge",
        }
    }

    /// Whether the role routes events.
    pub fn routes(self) -> bool {
        matches!(self, Self::Up | Self::Router)
    }

    /// Whether the role uses rules.
    pub fn reads_rules(self) -> bool {
        !matches!(self, Self::Ingest | Self::Bridge)
    }
}

impl Settings {
    /// Reads every layer.
    ///
    /// # Errors
    /// All mistakes of all layers, each with its key, its source and what is expected.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let settings = Self::read(&mut reader);
        reader.finish().map(|()| settings)
    }

    /// The settings that determine the configuration of the streams.
    pub fn sizing(&self) -> Sizing {
        Sizing {
            dedupe_interval: self.ingest.dedupe_interval,
            storage_limit: self.nats.storage_limit,
            replicas: self.nats.replicas,
        }
    }

    /// The address of metrics and readiness for this role. By default on every interface in a pod,
    /// else on loopback.
    pub fn admin_for(&self, role: Role) -> SocketAddr {
        let port = match role {
            Role::Up | Role::Ingest => 8080,
            Role::Router => 8081,
            Role::Worker => 8082,
            Role::Bridge => 8083,
        };
        self.admin
            .unwrap_or_else(|| SocketAddr::from((pod::admin_interface(), port)))
    }

    /// The settings without secrets, for the log.
    pub fn redacted(&self) -> impl Serialize + '_ {
        // Secret and Servers omit secrets when they are serialized.
        self
    }

    /// The settings that differ from their defaults, without secrets, as JSON.
    pub fn changed(&self) -> serde_json::Value {
        let json = |settings: &Self| serde_json::to_value(settings.redacted()).unwrap_or_default();
        let default = Self::load(&Sources::default()).map(|default| json(&default));
        changed::changed(json(self), &default.unwrap_or_default())
    }

    /// Every key that the reader takes, sorted.
    pub fn keys() -> Vec<&'static str> {
        let mut reader = Reader::new(&Sources::default());
        Self::read(&mut reader);
        reader.keys()
    }

    fn read(reader: &mut Reader) -> Self {
        let cluster = reader.value("cluster", value::text);
        Self {
            rules: RulesSettings::read(reader, &cluster),
            cluster,
            listen: reader.value("listen", value::address),
            admin: reader.optional("admin", value::address),
            data: reader.value("data", value::path),
            shutdown_grace: reader.value("shutdown_grace", value::duration),
            memory: MemorySettings {
                limit: reader.optional("memory.limit", value::memory),
            },
            shadow: reader.value("shadow", value::switch),
            log: LogSettings {
                filter: reader.value("log.filter", value::log_filter),
                format: reader.value("log.format", value::log_format),
            },
            otlp: OtlpSettings::read(reader),
            nats: NatsSettings::read(reader),
            kubernetes: KubernetesSettings {
                kubeconfig: reader.optional("kubernetes.kubeconfig", value::path),
                namespace: reader.optional("kubernetes.namespace", value::text),
            },
            ingest: IngestSettings::read(reader),
            router: RouterSettings {
                concurrency: reader.value("router.concurrency", value::count),
                release_finalizers: reader.value("router.release_finalizers", value::switch),
            },
            worker: WorkerSettings {
                pools: reader.list("worker.pools"),
                concurrency: reader.value("worker.concurrency", value::count),
                addresses: AddressSettings::read(reader),
            },
            links: LinksSettings {
                enabled: reader.value("links.enabled", value::switch),
                commit: reader.optional("links.commit", value::text),
                dashboard: reader.optional("links.dashboard", value::text),
                commit_status: reader.optional("links.commit_status", value::text),
            },
            console: ConsoleSettings::read(reader),
            watchdog: WatchdogSettings::read(reader),
            fallback: FallbackSettings::read(reader),
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
                required: reader.value("nats.tls.required", value::switch),
                ca: reader.optional("nats.tls.ca", value::path),
                cert: reader.optional("nats.tls.cert", value::path),
                key: reader.optional("nats.tls.key", value::path),
            },
            storage_limit: reader.optional("nats.storage_limit", value::size),
            replicas: reader.value("nats.replicas", value::count),
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
        let logins = [
            nats.username.is_some(),
            nats.token.is_some(),
            nats.credentials.is_some(),
            login.is_some(),
        ];
        if logins.into_iter().filter(|given| *given).count() > 1 {
            reader.mistake(
                "nats",
                "set only one of nats.username, nats.token, nats.credentials and a login in \
                 nats.url",
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
