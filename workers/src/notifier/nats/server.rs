//! The servers of a Provider: their allowed addresses, and the certificates to trust.
//!
//! async-nats would resolve names without a check. It therefore gets only checked addresses, and
//! certificates are compared with the names that resolved to them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tidings_core::{Failure, Reason};
use tidings_rules::Tls;
use tokio::net::lookup_host;

use crate::http::address_rules::AddressRules;
use crate::http::invalid::Invalid;

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

/// Resolves the servers to their allowed addresses, in the same order.
///
/// # Errors
/// No address is left: all are refused (permanent), or no name resolves (transient).
pub async fn resolve(
    servers: &[ServerAddr],
    rules: &AddressRules,
) -> Result<(Vec<ServerAddr>, Names), Failure> {
    let (mut found, mut names) = (Vec::new(), Names::default());
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
            Ok(addresses) => found.extend(
                addresses
                    .iter()
                    .filter_map(|address| at(server, address.ip(), &mut names)),
            ),
            Err(error) => failure = Some(error),
        }
    }
    let no_address = || Failure::transient(Reason::Unreachable, "the NATS server has no address");
    if found.is_empty() {
        Err(failure.unwrap_or_else(no_address))
    } else {
        Ok((found, names))
    }
}

/// The server by its address in place of its name.
fn at(server: &ServerAddr, address: IpAddr, names: &mut Names) -> Option<ServerAddr> {
    let name = ServerName::try_from(server.host().to_owned()).ok()?;
    names.0.entry(address).or_default().push(name);
    let mut url = server.clone().into_inner();
    url.set_ip_host(address).ok()?;
    ServerAddr::from_url(url).ok()
}

/// The certificate authorities to trust, and our own certificate.
pub struct Trust {
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Trust {
    /// Reads the certificates of a Provider, or the system's authorities if it has none.
    ///
    /// # Errors
    /// A certificate is invalid; the error names its key.
    pub fn new(tls: Option<&Tls>) -> Result<Self, Invalid> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> =
            match tls.and_then(|tls| tls.authorities.as_ref()) {
                Some(authorities) => {
                    let unreadable = "ca.crt holds no certificate in PEM form";
                    let mut roots = RootCertStore::empty();
                    for certificate in CertificateDer::pem_slice_iter(authorities.bytes()) {
                        roots
                            .add(certificate.map_err(|_| unreadable)?)
                            .map_err(|_| unreadable)?;
                    }
                    WebPkiServerVerifier::builder_with_provider(roots.into(), crypto)
                        .build()
                        .map_err(|_| unreadable)?
                }
                None => {
                    let unreadable = |_| Invalid::from("the system's certificates can't be read");
                    Arc::new(rustls_platform_verifier::Verifier::new(crypto).map_err(unreadable)?)
                }
            };
        Ok(Self {
            verifier,
            identity: tls.map(identity).transpose()?.flatten(),
        })
    }

    /// The TLS settings for servers that these names resolved to.
    ///
    /// # Errors
    /// The Provider's certificate and key do not match.
    pub fn config(&self, names: Names) -> Result<ClientConfig, Invalid> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(crypto).with_safe_default_protocol_versions();
        let builder = builder
            .expect("the provider has the default versions")
            .dangerous();
        let verifier = ByName {
            inner: self.verifier.clone(),
            names,
        };
        let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
        let Some((chain, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|_| Invalid::from(MISMATCHED))
    }
}

const MISMATCHED: &str = "tls.crt and tls.key are not a pair in PEM form";

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(tls: &Tls) -> Result<Option<ChainAndKey>, Invalid> {
    let Some((certificate, key)) = &tls.identity else {
        return Ok(None);
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.bytes()).map_err(|_| MISMATCHED)?;
    Ok(Some((chain.map_err(|_| MISMATCHED)?, key)))
}

/// Accepts a certificate if it is valid for a name that resolved to the address.
#[derive(Debug)]
struct ByName {
    inner: Arc<dyn ServerCertVerifier>,
    names: Names,
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
