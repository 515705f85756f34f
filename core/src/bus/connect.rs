//! Connecting to NATS.

use crate::runtime::codes::log as codes;
use std::path::Path;
use std::time::Duration;

use async_nats::{ConnectOptions, Event};

use crate::bus::Bus;
use crate::runtime::config::NatsSettings;
use crate::runtime::health::Check;

/// Older servers lack message schedules.
const OLDEST_SERVER: (i64, i64) = (2, 12);
/// The longest pause between two tries to connect.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Why there is no connection, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings can't be used.
    #[error("cannot use the settings for NATS: {0}")]
    Settings(String),
    /// The server did not take the connection.
    #[error("cannot connect to NATS: {0}")]
    Refused(String),
    /// The server is too old.
    #[error(
        "nats-server {found} is too old: message schedules, on which retries are kept, need 2.12 or later"
    )]
    TooOld {
        /// Its version.
        found: String,
    },
}

impl ConnectError {
    /// Whether trying again can help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Connects once. The connection then mends itself for as long as the process lives.
///
/// # Errors
/// The settings are wrong, the server is not there, refuses us, or is older than 2.12.
pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Bus, ConnectError> {
    let servers = settings.url.as_ref().ok_or_else(|| {
        ConnectError::Settings("there is no nats.url: name the server with --nats URL".to_owned())
    })?;
    let options = options(settings, name).await?;
    let client = options
        .connect(servers.addresses())
        .await
        .map_err(|error| refused(&error))?;
    let found = client.server_info().version;
    if !client.is_server_compatible(OLDEST_SERVER.0, OLDEST_SERVER.1, 0) {
        return Err(ConnectError::TooOld { found });
    }
    tracing::info!(code = codes::NATS_CONNECTED, version = %found, servers = %servers, "connected to NATS");
    Ok(Bus::new(client))
}

/// Connects, trying again while that can help; `check` tells meanwhile why there is no connection.
///
/// # Errors
/// The settings are wrong or the server is too old.
pub async fn connect_patiently(
    settings: &NatsSettings,
    name: &str,
    check: &Check,
) -> Result<Bus, ConnectError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match connect(settings, name).await {
            Err(error) if error.may_pass() => {
                tracing::warn!(code = codes::NATS_UNREACHABLE, %error, "cannot connect to NATS, retrying");
                check.fail(error.to_string());
            }
            result => return result,
        }
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

async fn options(settings: &NatsSettings, name: &str) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(name)
        .require_tls(settings.tls.required)
        .client_capacity(16_384)
        .subscription_capacity(65_536)
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_secs(4)))
        .reconnect_delay_callback(|attempt| {
            let bound = Duration::from_millis(50 * (1 << attempt.min(7)));
            bound.min(MOST_PAUSE).mul_f64(rand::random())
        })
        .event_callback(|event| async move { tell(&event) });
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
    if let (Some(username), Some(password)) = (&settings.username, &settings.password) {
        options = options.user_and_password(username.clone(), password.expose().to_owned());
    }
    if let Some(token) = &settings.token {
        options = options.token(token.expose().to_owned());
    }
    if let Some(file) = &settings.credentials {
        let unreadable = |error: std::io::Error| {
            ConnectError::Settings(format!("cannot read {}: {error}", file.display()))
        };
        options = options.credentials_file(file).await.map_err(unreadable)?;
    }
    Ok(options)
}

/// Whether a file can be what it must be; the client would try with it again and again, and not
/// tell which one is wrong.
fn check_pem(key: &str, file: &Path) -> Result<(), ConnectError> {
    let wrong = |why: String| ConnectError::Settings(format!("{key}: {} {why}", file.display()));
    let text = std::fs::read(file).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let begin = b"-----BEGIN ";
    let has_begin = text.windows(begin.len()).any(|window| window == begin);
    if has_begin {
        Ok(())
    } else {
        Err(wrong("is not in PEM form".to_owned()))
    }
}

fn refused(error: &async_nats::ConnectError) -> ConnectError {
    let told = error.to_string();
    // What the TLS library makes of an answer in plain text.
    let is_plain = told.contains("InvalidContentType");
    ConnectError::Refused(if is_plain {
        "the server does not speak the TLS that nats.tls asks for".to_owned()
    } else {
        told
    })
}

fn tell(event: &Event) {
    match event {
        Event::Connected => tracing::info!(
            code = codes::NATS_RECONNECTED,
            "NATS connection established"
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
