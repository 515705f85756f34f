//! The servers of a Provider: their allowed addresses, and the names for their certificates.
//!
//! async-nats would resolve names without a check, and buffer what a server sends without a limit.
//! It therefore gets only relays to checked addresses, and certificates are compared with the names
//! that resolved to them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tidings_core::{Failure, Reason};
use tokio::net::lookup_host;

use crate::http::address_rules::AddressRules;
use crate::http::invalid::Invalid;
use crate::notifier::nats::relay::Relay;

/// The most addresses that are tried.
const MOST_ADDRESSES: usize = 16;

/// The user info of an address.
pub enum UserInfo {
    /// `USER:PASSWORD@`
    Password(String, String),
    /// `TOKEN@`
    Token(String),
}

/// Parses one address and takes its user info, which async-nats would log and not use.
///
/// # Errors
/// It is not the address of a NATS server.
pub fn server(address: &str) -> Result<(ServerAddr, Option<UserInfo>), Invalid> {
    // The parser's error quotes the address, which may hold a password.
    let unusable =
        |_| Invalid::from("the address is not one of a NATS server; write it as nats://HOST:4222");
    let mut url = address
        .trim()
        .parse::<ServerAddr>()
        .map_err(unusable)?
        .into_inner();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user_info = match (url.username(), url.password()) {
        ("", _) => None,
        (token, None) => Some(UserInfo::Token(decoded(token))),
        (username, Some(password)) => {
            Some(UserInfo::Password(decoded(username), decoded(password)))
        }
    };
    // An address with a host accepts user info.
    let _ = (url.set_username(""), url.set_password(None));
    Ok((ServerAddr::from_url(url).map_err(unusable)?, user_info))
}

/// The names that resolved to each address.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<IpAddr, Vec<ServerName<'static>>>);

/// Relays to the servers of a Provider.
#[derive(Default)]
pub struct Relays {
    /// Where the client connects.
    pub servers: Vec<ServerAddr>,
    /// The names for certificates. All relays have the same address.
    pub names: Names,
    _relays: Vec<Relay>,
}

/// Resolves the servers to their allowed addresses, and starts a relay to each, in the same order.
///
/// # Errors
/// No address is left: all are refused (permanent), or no name resolves (transient).
pub async fn resolve(servers: &[ServerAddr], rules: &AddressRules) -> Result<Relays, Failure> {
    let mut relays = Relays::default();
    let mut failure = None;
    for server in servers {
        let addresses = match lookup_host((server.host(), server.port())).await {
            Ok(addresses) => rules.admit(server.host(), addresses).map_err(Failure::from),
            Err(error) => {
                let detail = format!(
                    "the name {} of the NATS server does not resolve: {error}",
                    server.host()
                );
                Err(Failure::transient(Reason::Unreachable, detail))
            }
        };
        match addresses {
            Ok(addresses) => {
                for address in addresses {
                    relays.add(server, address).await?;
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    let no_address = || Failure::transient(Reason::Unreachable, "the NATS server has no address");
    if relays.servers.is_empty() {
        Err(failure.unwrap_or_else(no_address))
    } else {
        Ok(relays)
    }
}

impl Relays {
    /// Adds a relay to an address of a server, unless there are many already.
    async fn add(&mut self, server: &ServerAddr, address: SocketAddr) -> Result<(), Failure> {
        let Ok(name) = ServerName::try_from(server.host().to_owned()) else {
            return Ok(());
        };
        if self.servers.len() >= MOST_ADDRESSES {
            return Ok(());
        }
        let relay = Relay::start(address).await.map_err(|error| {
            let detail = format!("a port for the connection to the NATS server: {error}");
            Failure::transient(Reason::Unreachable, detail)
        })?;
        let mut url = server.clone().into_inner();
        let is_set = url.set_ip_host(relay.address.ip()).is_ok()
            && url.set_port(Some(relay.address.port())).is_ok();
        if let (true, Ok(server)) = (is_set, ServerAddr::from_url(url)) {
            let names = self.names.0.entry(relay.address.ip()).or_default();
            names.push(name);
            self.servers.push(server);
            self._relays.push(relay);
        }
        Ok(())
    }
}

/// Accepts a certificate if it is valid for a name that resolved to the address.
#[derive(Debug)]
pub struct ByName {
    /// Verifies the certificate for each of the names.
    pub inner: Arc<dyn ServerCertVerifier>,
    /// The names that resolved to each address.
    pub names: Names,
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let names = match server_name {
            ServerName::IpAddress(address) => {
                self.names.0.get(&IpAddr::from(*address)).map(Vec::as_slice)
            }
            _ => None,
        };
        let verify = |name: &ServerName<'_>| {
            self.inner
                .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let Some((first, others)) = names.and_then(<[_]>::split_first) else {
            return verify(server_name);
        };
        others.iter().fold(verify(first), |verified, name| {
            verified.or_else(|_| verify(name))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
