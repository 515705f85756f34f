//! Connects to NATS.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectOptions, Event};

use crate::bus::credentials::CredentialsFile;
use crate::bus::permission::Violations;
use crate::bus::{Bus, credentials};
use crate::model::access::Access;
use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::runtime::config::{NatsSettings, Secret, Servers};
use crate::runtime::health::Check;
use crate::runtime::reload::read_file;

/// The first version with message schedules.
const OLDEST_SERVER: (i64, i64) = (2, 12);
/// The most bytes of a file with certificates or a key.
const LARGEST_PEM: usize = 1 << 20;
/// The most messages of a subscription that wait to be read; of requests of guests fewer, because
/// each can have 8 MB.
const MOST_UNREAD: usize = 65_536;
const MOST_UNREAD_OF_GUESTS: usize = 64;
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The connection to NATS failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings are invalid.
    #[error("invalid settings for NATS: {0}")]
    Settings(String),
    /// The server is unreachable or refuses the connection.
    #[error("cannot connect to NATS: {0}")]
    Refused(String),
    /// The server has no message schedules.
    #[error(
        "nats-server {found} is too old: upgrade to 2.12 or later, retries need message schedules"
    )]
    TooOld {
        /// The version of the server.
        found: String,
    },
}

impl ConnectError {
    /// Whether another attempt can succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Connects once. Later the client reconnects by itself for as long as the process runs.
///
/// # Errors
/// The settings are invalid, the server is unreachable, refuses the connection, or is too old.
pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Bus, ConnectError> {
    connect_with(settings, name, MOST_UNREAD).await
}

/// Connects once, for requests of guests. They may be large, and what floods this connection does
/// not delay the others.
///
/// # Errors
/// As [`connect`].
pub async fn connect_for_guests(settings: &NatsSettings) -> Result<Bus, ConnectError> {
    connect_with(settings, "tidings guests", MOST_UNREAD_OF_GUESTS).await
}

/// Whether the credentials file is that of a router of a fleet, which answers guests.
pub fn may_answer_guests(settings: &NatsSettings) -> bool {
    User::of(settings).is_ok_and(|user| user.access.is_permitted("_R_.answer"))
}

async fn connect_with(
    settings: &NatsSettings,
    name: &str,
    most_unread: usize,
) -> Result<Bus, ConnectError> {
    let servers = servers(settings)?;
    let user = User::of(settings)?;
    let login = Arc::new(user.login);
    let options = ConnectOptions::with_auth_callback(move |nonce| {
        let login = login.clone();
        async move { login.auth(&nonce).await.map_err(AuthError::new) }
    });
    let options = with_settings(options, settings, name, &user.access)?;
    let options = options.subscription_capacity(most_unread);
    let violations = Arc::new(Violations::default());
    let client = options
        .event_callback(log_events(violations.clone()))
        .connect(servers.addresses())
        .await
        .map_err(|error| refused(&error))?;
    check_version(&client)?;
    tracing::info!(
        code = codes::NATS_CONNECTED,
        version = %client.server_info().version,
        servers = %servers,
        "connected to NATS"
    );
    let mut bus = Bus::new(client, user.access, user.secret);
    bus.violations = violations;
    Ok(bus)
}

/// Connects, and never reconnects: after the connection is lost, the bus stays disconnected, and
/// what it had not sent yet is not sent. A message that is not confirmed within `confirmed_within`
/// counts as not stored.
///
/// A client that reconnects first sends what it still holds. Whoever repeats the messages of the
/// lost connection in order must not have some of them sent before the others.
///
/// # Errors
/// The settings are invalid, the server is unreachable, refuses the connection, or is too old.
pub(super) async fn connect_once(
    settings: &NatsSettings,
    name: &str,
    confirmed_within: Duration,
) -> Result<Bus, ConnectError> {
    let servers = servers(settings)?;
    let user = User::of(settings)?;
    let login = Arc::new(user.login);
    let has_connected = Arc::new(AtomicBool::new(false));
    let connected = has_connected.clone();
    let options = ConnectOptions::with_auth_callback(move |nonce| {
        let (login, connected) = (login.clone(), connected.clone());
        async move {
            if connected.load(Ordering::SeqCst) {
                return Err(AuthError::new("this client does not reconnect"));
            }
            login.auth(&nonce).await.map_err(AuthError::new)
        }
    });
    let options = with_settings(options, settings, name, &user.access)?
        // The first attempts may try each server twice.
        .max_reconnects(servers.addresses().len() * 2)
        .event_callback(|event| {
            tracing::debug!(code = codes::NATS_EVENT, event = %event, "NATS client event");
            std::future::ready(())
        });
    let client = options.connect(servers.addresses()).await;
    let client = client.map_err(|error| refused(&error))?;
    has_connected.store(true, Ordering::SeqCst);
    check_version(&client)?;
    let bus = Bus::confirmed_within(confirmed_within, client, user.access, user.secret);
    Ok(bus)
}

fn check_version(client: &async_nats::Client) -> Result<(), ConnectError> {
    match client.is_server_compatible(OLDEST_SERVER.0, OLDEST_SERVER.1, 0) {
        true => Ok(()),
        false => Err(ConnectError::TooOld {
            found: client.server_info().version,
        }),
    }
}

/// The cluster that the credentials file of the settings was issued for. `None` for credentials
/// that are not those of a member of a fleet.
///
/// # Errors
/// The file cannot be read.
pub fn member(settings: &NatsSettings) -> Result<Option<String>, ConnectError> {
    Ok(User::of(settings)?.access.member().map(str::to_owned))
}

fn servers(settings: &NatsSettings) -> Result<&Servers, ConnectError> {
    let missing = || ConnectError::Settings("nats.url is not set: pass --nats URL".to_owned());
    settings.url.as_ref().ok_or_else(missing)
}

/// Connects, and retries until it succeeds. Until then, `check` reports the last error.
///
/// # Errors
/// The settings are invalid or the server is too old.
pub async fn connect_with_retries(
    settings: &NatsSettings,
    name: &str,
    check: &Check,
) -> Result<Bus, ConnectError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match connect(settings, name).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(
                    code = codes::NATS_UNREACHABLE,
                    servers = settings.url.as_ref().map(ToString::to_string),
                    %error,
                    "cannot connect to NATS, retrying"
                );
                check.fail(error.to_string());
            }
            result => return result,
        }
        tokio::time::sleep(jitter(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Whom the settings log in as.
struct User {
    /// What the credentials file says that the user may do.
    access: Access,
    /// The secret of a member.
    secret: Option<Arc<str>>,
    login: Login,
}

/// How the client logs in.
enum Login {
    File(CredentialsFile),
    Settings(Box<NatsSettings>),
}

impl User {
    fn of(settings: &NatsSettings) -> Result<Self, ConnectError> {
        let Some(path) = &settings.credentials else {
            return Ok(Self {
                access: Access::default(),
                secret: None,
                login: Login::Settings(Box::new(settings.clone())),
            });
        };
        let text = credentials::read(path).map_err(ConnectError::Settings)?;
        let access = Access::of_credentials(&text);
        let secret = access.member().map(|_| credentials::secret(&text).into());
        Ok(Self {
            access,
            secret,
            login: Login::File(CredentialsFile::new(path, &text)),
        })
    }
}

impl Login {
    async fn auth(&self, nonce: &[u8]) -> Result<Auth, String> {
        let settings = match self {
            Self::File(file) => return file.auth(nonce).await,
            Self::Settings(settings) => settings,
        };
        let mut auth = Auth::new();
        auth.username.clone_from(&settings.username);
        let secret = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
        auth.password = secret(&settings.password);
        auth.token = secret(&settings.token);
        Ok(auth)
    }
}

/// Everything but the login.
fn with_settings(
    mut options: ConnectOptions,
    settings: &NatsSettings,
    name: &str,
    access: &Access,
) -> Result<ConnectOptions, ConnectError> {
    if let Some(prefix) = access.inbox_prefix() {
        options = options.custom_inbox_prefix(prefix);
    }
    options = options
        .name(name)
        .require_tls(settings.tls.required)
        .client_capacity(16_384)
        .subscription_capacity(MOST_UNREAD)
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_secs(4)))
        .reconnect_delay_callback(|attempt| {
            let bound = Duration::from_millis(50 * (1 << attempt.min(7)));
            jitter(bound.min(MAX_PAUSE))
        });
    if let Some(ca) = &settings.tls.ca {
        check_pem("nats.tls.ca", ca)?;
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&settings.tls.cert, &settings.tls.key) {
        check_pem("nats.tls.cert", certificate)?;
        check_pem("nats.tls.key", key)?;
        options = options
            .add_client_certificate(certificate.clone(), key.clone())
            .require_tls(true);
    }
    Ok(options)
}

/// Checks a certificate or key file. The client itself would retry with an invalid file forever and
/// not name it.
fn check_pem(key: &str, file: &Path) -> Result<(), ConnectError> {
    let invalid = |why: String| ConnectError::Settings(format!("{key}: {} {why}", file.display()));
    let text = read_file(file, LARGEST_PEM);
    let text = text.map_err(|why| ConnectError::Settings(format!("{key}: {why}")))?;
    let begin = b"-----BEGIN ";
    let has_begin = text.windows(begin.len()).any(|window| window == begin);
    if has_begin {
        Ok(())
    } else {
        Err(invalid("is not a PEM file".to_owned()))
    }
}

fn refused(error: &async_nats::ConnectError) -> ConnectError {
    let message = error.to_string();
    // The error of the TLS library when the server answers in plain text.
    let is_plain = message.contains("InvalidContentType");
    let lower = message.to_lowercase();
    ConnectError::Refused(if is_plain {
        "the server does not use TLS, which nats.tls requires".to_owned()
    } else if lower.contains("unknownissuer") {
        format!("{message}: set nats.tls.ca to the file of the certificate authority")
    } else if lower.contains("authorization violation") {
        format!(
            "{message}: the credentials are missing, revoked, or of another server; set \
             nats.credentials to the file that `tidings fleet` wrote last"
        )
    } else {
        message
    })
}

/// Logs the events of the client, except the first connection, which [`connect`] logs.
fn log_events(
    violations: Arc<Violations>,
) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    let has_connected = AtomicBool::new(false);
    move |event| {
        match &event {
            Event::ServerError(error) => violations.note(&error.to_string()),
            Event::Disconnected => violations.reset(),
            _ => {}
        }
        if !matches!(event, Event::Connected) || has_connected.swap(true, Ordering::Relaxed) {
            log_event(&event);
        }
        std::future::ready(())
    }
}

fn log_event(event: &Event) {
    match event {
        Event::Connected => tracing::info!(
            code = codes::NATS_RECONNECTED,
            "NATS connection established again"
        ),
        Event::Disconnected => tracing::warn!(
            code = codes::NATS_DISCONNECTED,
            "NATS connection lost, reconnecting"
        ),
        Event::ClientError(error) => {
            tracing::warn!(code = codes::NATS_CLIENT_ERROR, %error, "NATS client error")
        }
        Event::ServerError(error) => {
            tracing::warn!(code = codes::NATS_SERVER_ERROR, %error, "NATS server error")
        }
        other => tracing::debug!(code = codes::NATS_EVENT, event = %other, "NATS client event"),
    }
}
