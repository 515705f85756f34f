//! TLS of a server: certificate and key from files, and handshakes that cost no other sender.
//!
//! A handshake has a time limit. When as many are open as allowed, a new one takes the place of the
//! oldest. Handshakes hold no place of an open connection, so a sender that does not finish one
//! closes no connection of another sender.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::connections::{Connection, Connections};
use crate::runtime::codes::log as codes;
use crate::runtime::metrics::labels::HandshakeFailure;
use crate::runtime::reload::{Contents, Reloading, read_file};

/// The time limit of a handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest file with a certificate chain or a key.
const MAX_FILE_BYTES: usize = 256 << 10;
/// The most certificates of a chain.
const MAX_CHAIN: usize = 16;
/// The most handshakes at a time, for any number of connections.
const MOST_HANDSHAKES: usize = 256;
const LEAST_HANDSHAKES: usize = 16;
/// How long, and how much, the rest of a request without TLS is read, so that its sender sees the
/// answer instead of a reset connection.
const PLAINTEXT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_PLAINTEXT_BYTES: u64 = 64 << 10;

/// A certificate with its key, ready for handshakes.
pub struct ServerCertificate {
    config: Arc<ServerConfig>,
    /// When the certificate expires, in seconds since 1970.
    pub expires: i64,
}

/// Performs the handshakes of a server. Clones share their limits.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<ArcSwap<ServerCertificate>>,
    handshakes: Arc<Connections>,
    failures: Family<HandshakeFailure, Counter>,
}

/// What a server counts of its handshakes.
#[derive(Clone)]
pub struct TlsMetrics {
    /// The handshakes that are in progress.
    pub handshakes: Gauge,
    /// The handshakes that failed.
    pub failures: Family<HandshakeFailure, Counter>,
    /// When the certificate expires, in seconds since 1970.
    pub expires: Gauge,
}

/// The settings that name the files, for errors.
#[derive(Clone, Copy, Debug)]
pub struct TlsSettingNames {
    /// The setting of the certificate.
    pub cert: &'static str,
    /// The setting of the key.
    pub key: &'static str,
}

impl Tls {
    /// For a server with `connections` at a time.
    pub fn new(
        certificate: Arc<ArcSwap<ServerCertificate>>,
        connections: usize,
        metrics: TlsMetrics,
    ) -> Self {
        let most = (connections / 4).clamp(LEAST_HANDSHAKES, MOST_HANDSHAKES);
        Self {
            certificate,
            handshakes: Connections::new(most, metrics.handshakes),
            failures: metrics.failures,
        }
    }

    /// The most handshakes at a time.
    pub(super) fn most(&self) -> usize {
        self.handshakes.most()
    }

    /// A place for a new handshake. If there is none, the oldest one loses its place.
    pub(super) fn open(&self) -> Connection {
        if self.handshakes.is_full() && self.handshakes.close_longest_silent() {
            self.count(HandshakeFailure::Displaced);
        }
        self.handshakes.open()
    }

    /// The handshake of one connection. `None` if it fails, for a reason that is counted.
    pub(super) async fn handshake(
        &self,
        mut stream: TcpStream,
        place: Connection,
    ) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.certificate.load().config.clone());
        let accepting = async {
            let mut first = [0];
            if stream.peek(&mut first).await.is_ok() && first[0].is_ascii_alphabetic() {
                refuse_plaintext(&mut stream).await;
                return Err(HandshakeFailure::Plaintext);
            }
            acceptor.accept(stream).await.map_err(|error| {
                tracing::debug!(code = codes::HANDSHAKE_FAILED, %error, "TLS handshake failed");
                HandshakeFailure::Failed
            })
        };
        let accepted = tokio::select! {
            accepted = timeout(HANDSHAKE_TIMEOUT, accepting) => accepted,
            // Counted when it lost its place.
            () = place.closed() => return None,
        };
        match accepted.unwrap_or(Err(HandshakeFailure::TimedOut)) {
            Ok(stream) => Some(stream),
            Err(failure) => {
                self.count(failure);
                None
            }
        }
    }

    fn count(&self, failure: HandshakeFailure) {
        self.failures.get_or_create(&failure).inc();
    }
}

/// Certificate and key from PEM files, which are read again when they change.
///
/// # Errors
/// A file cannot be read, or certificate and key cannot be used together.
pub fn from_files(
    names: TlsSettingNames,
    cert: PathBuf,
    key: PathBuf,
) -> Result<Reloading<ServerCertificate>, String> {
    let read = move || {
        let file = |name: &str, path: &Path| -> Result<_, String> {
            let content = read_file(path, MAX_FILE_BYTES);
            let content = content.map_err(|problem| format!("{name}: {problem}"))?;
            Ok((name.to_owned(), content))
        };
        Ok(vec![file(names.cert, &cert)?, file(names.key, &key)?])
    };
    let parse = move |contents: &Contents| match &contents[..] {
        [(_, cert), (_, key)] => ServerCertificate::new(names, cert, key),
        _ => Err("certificate and key are two files".to_owned()),
    };
    Reloading::new(read, parse)
}

impl ServerCertificate {
    /// Checks that the certificate chain and the key, both as PEM, fit together.
    fn new(names: TlsSettingNames, cert: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let TlsSettingNames {
            cert: cert_name,
            key: key_name,
        } = names;
        // The errors of the parser could quote the content, so they are not shown.
        let chain = chain.map_err(|_| format!("{cert_name}: the file is not valid PEM"))?;
        let first = chain.first().ok_or_else(|| {
            format!(
                "{cert_name}: the file has no certificate; write the server's certificate and \
                 then its intermediate certificates as PEM"
            )
        })?;
        if chain.len() > MAX_CHAIN {
            return Err(format!(
                "{cert_name}: the file has more than {MAX_CHAIN} certificates"
            ));
        }
        let (_, parsed) = X509Certificate::from_der(first)
            .map_err(|_| format!("{cert_name}: the first certificate is not valid X.509"))?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            format!("{key_name}: the file has no private key; write an unencrypted key as PEM")
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                format!("{key_name}: the key does not fit the certificate: {error}")
            })?;
        let mut config = config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            expires,
        })
    }
}

/// Answers a sender that speaks HTTP without TLS, as Go's server does.
async fn refuse_plaintext(stream: &mut TcpStream) {
    use crate::runtime::codes::http as codes;
    let body = format!(
        r#"{{"code":"{}","error":"this address takes HTTPS; use https://"}}"#,
        codes::TLS_REQUIRED
    );
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let answering = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let (mut rest, mut unread) = (stream.take(MAX_PLAINTEXT_BYTES), tokio::io::sink());
        tokio::io::copy(&mut rest, &mut unread).await
    };
    // Whether the sender sees the answer depends on the sender.
    let _ = timeout(PLAINTEXT_TIMEOUT, answering).await;
}
