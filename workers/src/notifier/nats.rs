//! `nats`: the event as JSON to a subject of a NATS server.
//!
//! Contract: NATS documentation, "Client Protocol". As in Flux, each event uses its own connection,
//! with the Secret's `creds`, else `nkey`, else `username` and `password`, else the user info of
//! the address.
//!
//! Core NATS does not acknowledge. An empty request to an unused subject therefore follows the
//! event: the server answers it (with "no responders", since 2.2) after it has read the event, and
//! reports errors about the event before. A subject is not a stream: without a subscriber the event
//! is lost.
//!
//! NATS is not HTTP, so proxies do not apply and a dry run shows no request. A retry after a lost
//! response publishes twice.

mod relay;
mod server;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use rustls::ClientConfig;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider, SecretData};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::Http;
use crate::http::address_rules::AddressRules;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::generic::{CLUSTER_FIELD, metadata};
use crate::notifier::payload::fit_body::fit_event;
use crate::tls::{Trust, untrusted};
use server::{ByName, Names, UserInfo, resolve, server};

/// The name of our connections in the server's list.
const NAME: &str = "NATS Provider Publisher";

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "nats",
    family: Family::Message,
    summary: "NATS, the event as JSON on a subject",
    needs: &[
        Need::field(
            "address",
            Required,
            "the servers, separated by commas: nats://HOST:4222",
            "nats://nats.example.com:4222",
        ),
        Need::field("channel", Required, "the subject", "flux.events"),
        Need::key("creds", Optional, "a credentials file", ""),
        Need::key("nkey", Optional, "the seed of an nkey", ""),
        Need::key("username", Optional, "with password", "your-user"),
        Need::key("password", Optional, "with username", "your-password"),
        CLUSTER_FIELD,
    ],
    cut_at: "the server's `max_payload`",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    content: Content::Event,
    uses_http: false,
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://docs.nats.io/running-a-nats-service/configuration#limits",
        body: BodyLimit::Announced,
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

struct Nats {
    dry_run: bool,
    servers: Vec<ServerAddr>,
    /// The user info of the address, if the Secret has no credentials.
    user_info: Option<UserInfo>,
    secret: SecretData,
    rules: Arc<AddressRules>,
    requires_tls: bool,
    trust: Trust,
    timeout: Duration,
    cluster_field: bool,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    if provider.address.is_empty() {
        return Err(Invalid::from(
            "no address: set spec.address to that of the server, such as nats://HOST:4222",
        ));
    }
    let (servers, user_infos): (Vec<_>, Vec<_>) = provider
        .address
        .split(',')
        .map(server)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .unzip();
    let nats = Nats {
        dry_run: http.is_dry_run(),
        servers,
        user_info: user_infos.into_iter().flatten().next(),
        secret: provider.secret.clone(),
        rules: http.address_rules().clone(),
        requires_tls: provider.tls.is_some(),
        trust: Trust::new(provider.tls.as_ref())?,
        timeout: provider.timeout,
        cluster_field: provider.cluster_field,
    };
    nats.options()?;
    nats.tls(Names::default())?;
    Ok(Notifier::Message(Box::new(nats)))
}

#[async_trait]
impl SendMessage for Nats {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        if message.channel.is_empty() {
            let detail =
                "no subject: set spec.channel of the Provider, or of the Alert, to a subject";
            return Err(Failure::permanent(Reason::Misconfigured, detail));
        }
        if !self.dry_run {
            let late = Failure::transient(
                Reason::Timeout,
                format!("the NATS server did not answer within {:?}", self.timeout),
            );
            // The client panics if it cannot parse a line of the server.
            let published = AssertUnwindSafe(self.publish(message)).catch_unwind();
            tokio::time::timeout(self.timeout, published)
                .await
                .unwrap_or(Ok(Err(late)))
                .unwrap_or_else(|_| Err(unreadable()))?;
        }
        Ok(Sent::Accepted {
            status: None,
            handle: None,
        })
    }
}

impl Nats {
    fn options(&self) -> Result<ConnectOptions, Invalid> {
        // The Provider's timeout ends every wait. A lost connection is not restored: each server is
        // tried once.
        let options = ConnectOptions::new()
            .name(NAME)
            .connection_timeout(self.timeout)
            .request_timeout(None);
        // Servers that the server announces are not used, since their addresses are not checked.
        let options = options
            .ignore_discovered_servers()
            .require_tls(self.requires_tls);
        if let Some(creds) = self.secret.text("creds") {
            let unreadable = |_| {
                Invalid::from(
                    "the key creds in the Secret is not a NATS credentials file with user JWT \
                     and seed",
                )
            };
            // async-nats needs the final line break, which is trimmed from Secrets' texts.
            return options
                .credentials(&format!("{creds}\n"))
                .map_err(unreadable);
        }
        if let Some(seed) = self.secret.text("nkey") {
            return Ok(options.nkey(seed.to_owned()));
        }
        Ok(match (self.secret.basic(), &self.user_info) {
            (Some((username, password)), _) => {
                options.user_and_password(username.to_owned(), password.to_owned())
            }
            (None, Some(UserInfo::Password(username, password))) => {
                options.user_and_password(username.clone(), password.clone())
            }
            (None, Some(UserInfo::Token(token))) => options.token(token.clone()),
            (None, None) => options,
        })
    }

    /// The TLS settings for servers that these names resolved to.
    fn tls(&self, names: Names) -> Result<ClientConfig, Invalid> {
        let inner = self.trust.verifier();
        self.trust.config(Arc::new(ByName { inner, names }))
    }

    /// Connects, publishes, and waits until the server has read the event.
    async fn publish(&self, message: &Message<'_>) -> Result<(), Failure> {
        let (sender, mut events) = unbounded_channel();
        let misconfigured = |invalid: Invalid| Failure::permanent(Reason::Misconfigured, invalid.0);
        let relays = resolve(&self.servers, &self.rules).await?;
        let tls = self.tls(relays.names.clone()).map_err(misconfigured)?;
        let options = self
            .options()
            .map_err(misconfigured)?
            .tls_client_config(tls)
            .max_reconnects(relays.servers.len());
        let options = options.event_callback(move |event| {
            // The receiver is gone if the connection is closed after a timeout.
            let _ = sender.send(event);
            std::future::ready(())
        });
        let client = options
            .connect(&relays.servers[..])
            .await
            .map_err(connect_failure)?;
        // The server has announced its limit.
        let headers = headers(message);
        let most = client.max_payload().saturating_sub(size(&headers));
        let payload = fit_event(most, message.event, &metadata(message, self.cluster_field));
        publish_on(&client, message.channel, headers, payload.into()).await?;
        round_trip(&client, &mut events).await?;
        // `Closed` is the last event, so all errors of the server have arrived by then.
        client.drain().await.map_err(|_| connection_lost())?;
        while let Some(event) = events.recv().await {
            match event {
                Event::Closed => break,
                event => check_event(event, &client)?,
            }
        }
        Ok(())
    }
}

/// The cluster's name, unless it is `default`. Servers before 2.2 have no headers, so a message
/// without the name needs none.
fn headers(message: &Message<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(cluster) = message.cluster_header() {
        headers.insert("Tidings-Cluster", cluster.as_str());
    }
    headers
}

/// The size of headers in a message, which counts towards the server's limit.
fn size(headers: &HeaderMap) -> usize {
    match headers.is_empty() {
        true => 0,
        // `NATS/1.0`, `NAME: VALUE` and an empty line, with line breaks.
        false => headers.iter().fold(12, |size, (name, values)| {
            let name: &str = name.as_ref();
            let lines = values
                .iter()
                .map(|value| name.len() + value.as_str().len() + 4);
            size + lines.sum::<usize>()
        }),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this server is a user's, not the bus"
)]
async fn publish_on(
    client: &Client,
    subject: &str,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<(), Failure> {
    let subject = subject.to_owned();
    let published = match headers.is_empty() {
        true => client.publish(subject, payload).await,
        false => client.publish_with_headers(subject, headers, payload).await,
    };
    published.map_err(|error| match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Failure::permanent(
            Reason::Rejected,
            "the event exceeds the server's max_payload; raise it",
        ),
        PublishErrorKind::InvalidSubject => {
            Failure::permanent(Reason::Misconfigured, "the channel is not a NATS subject")
        }
        PublishErrorKind::Send => Failure::transient(
            Reason::Unreachable,
            "the connection to the NATS server was lost",
        ),
    })
}

/// Waits until the server has read everything so far: it answers or rejects a request without a
/// responder.
async fn round_trip(client: &Client, events: &mut UnboundedReceiver<Event>) -> Result<(), Failure> {
    let request = client.request(format!("{}.taken", client.new_inbox()), Bytes::new());
    tokio::pin!(request);
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => match event {
                Event::ServerError(error) if is_about_inbox(&error.to_string(), client) => {
                    return Ok(());
                }
                event => check_event(event, client)?,
            },
            response = &mut request => return match response {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
                Err(_) => Err(connection_lost()),
            },
        }
    }
}

/// Checks what an event of the connection means for the published event.
fn check_event(event: Event, client: &Client) -> Result<(), Failure> {
    match event {
        Event::ServerError(error) => {
            let text = error.to_string();
            if is_about_inbox(&text, client) {
                return Ok(());
            }
            let is_permission = text.to_lowercase().contains("permissions violation");
            let reason = if is_permission {
                Reason::Unauthorized
            } else {
                Reason::ServerError
            };
            Err(Failure::transient(
                reason,
                format!(
                    "the NATS server reported: {}",
                    text.trim_start_matches("nats: ")
                ),
            ))
        }
        Event::Disconnected | Event::ClientError(_) => Err(connection_lost()),
        _ => Ok(()),
    }
}

/// Whether an error is about our request. A user may be allowed only to publish events; then the
/// rejection of the request serves as the response.
fn is_about_inbox(text: &str, client: &Client) -> bool {
    let inbox = client.new_inbox();
    let prefix = inbox
        .split_once('.')
        .map_or(inbox.as_str(), |(prefix, _)| prefix);
    text.contains(&format!("\"{prefix}."))
}

fn unreadable() -> Failure {
    Failure::transient(
        Reason::ServerError,
        "the NATS server sent what the NATS protocol does not allow",
    )
}

fn connection_lost() -> Failure {
    Failure::transient(
        Reason::Unreachable,
        "the connection to the NATS server was lost before it acknowledged the event",
    )
}

/// Only the kind is reported, since the cause may quote the address with a password.
fn connect_failure(error: ConnectError) -> Failure {
    if let Some(failure) = untrusted("the NATS server", &error) {
        return failure;
    }
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => Failure::transient(
            Reason::Unauthorized,
            "the NATS server did not accept the credentials",
        ),
        ConnectErrorKind::Authentication => Failure::permanent(
            Reason::Misconfigured,
            "the key nkey or creds in the Secret has an invalid seed; correct it",
        ),
        ConnectErrorKind::ServerParse => Failure::permanent(
            Reason::Misconfigured,
            "the address is not nats://HOST:PORT; correct spec.address",
        ),
        ConnectErrorKind::TimedOut => {
            Failure::transient(Reason::Timeout, "the NATS server did not answer in time")
        }
        kind => Failure::transient(
            Reason::Unreachable,
            format!("no connection to the NATS server: {kind}"),
        ),
    }
}

#[cfg(test)]
mod tests;
