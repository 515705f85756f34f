//! A temporary certificate authority for servers and clients in tests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// The common name in the client's certificate.
pub const CLIENT: &str = "flux-client";

/// An authority and the certificates that it issued.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    client: (rcgen::Certificate, KeyPair),
    acceptors: Mutex<HashMap<String, TlsAcceptor>>,
}

impl Authority {
    /// Creates an authority.
    #[expect(
        clippy::new_without_default,
        reason = "it generates keys and writes files"
    )]
    pub fn new() -> Self {
        // The error means that another test installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = parameters("vectors test CA", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let issuer =
            CertifiedIssuer::self_signed(params, new_key()).expect("the parameters are valid");
        let folder = tempfile::Builder::new()
            .prefix("vectors-ca-")
            .tempdir()
            .expect("the temporary folder is writable");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is writable");
        let key = new_key();
        let mut params = parameters(CLIENT, Vec::new());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&key, &issuer)
            .expect("the parameters are valid");
        Self {
            folder,
            issuer,
            client: (certificate, key),
            acceptors: Mutex::default(),
        }
    }

    /// The file with its certificate, for SSL_CERT_FILE.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a host and its key, as PEM.
    pub fn certificate_for(&self, host: &str) -> (String, String) {
        let (certificate, key) = self.signed_for(host);
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate of a server that is a client of its peers, too, for these hosts, and its key,
    /// as PEM.
    pub fn certificate_of_peer(&self, hosts: &[&str]) -> (String, String) {
        let key = new_key();
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = parameters("a peer", hosts);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are valid");
        (certificate.pem(), key.serialize_pem())
    }

    /// A folder that does not exist, for SSL_CERT_DIR.
    pub fn missing_folder(&self) -> PathBuf {
        self.folder.path().join("none")
    }

    /// The common name in a client's certificate: `CLIENT`, or `another client`.
    pub fn name_of(&self, certificate: &CertificateDer<'_>) -> String {
        if certificate == self.client.0.der() {
            CLIENT.to_owned()
        } else {
            "another client".to_owned()
        }
    }

    /// An acceptor of TLS connections to this host.
    pub fn acceptor_for(&self, host: &str) -> TlsAcceptor {
        let mut acceptors = self.acceptors.lock();
        acceptors
            .entry(host.to_owned())
            .or_insert_with(|| TlsAcceptor::from(Arc::new(self.config_for(host))))
            .clone()
    }

    fn config_for(&self, host: &str) -> ServerConfig {
        let (certificate, key) = self.signed_for(host);
        let mut roots = RootCertStore::empty();
        roots
            .add(self.issuer.der().clone())
            .expect("the authority has a certificate");
        let clients = WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .expect("the store has a root");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is valid");
        let config = ServerConfig::builder().with_client_cert_verifier(clients);
        let mut config = config
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("key and certificate match");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    fn signed_for(&self, host: &str) -> (rcgen::Certificate, KeyPair) {
        let key = new_key();
        let mut params = parameters(host, vec![host.to_owned()]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are valid");
        (certificate, key)
    }

    /// Replaces the placeholders in the text of a recorded Secret.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        let (certificate, key) = &self.client;
        let values = [
            ("{{sink_ca}}", self.issuer.pem()),
            ("{{client_cert}}", certificate.pem()),
            ("{{client_key}}", key.serialize_pem()),
        ];
        for (placeholder, value) in values {
            filled = filled.replace(placeholder, &value);
        }
        if filled.contains("{{rsa_private_key}}") {
            let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
                .expect("the machine has randomness");
            filled = filled.replace("{{rsa_private_key}}", &key.serialize_pem());
        }
        filled
    }
}

/// A certificate that is its own authority, as `openssl req -x509` makes them, and its key, as PEM.
pub fn self_signed(host: &str) -> (String, String) {
    let key = new_key();
    let mut params = parameters(host, vec![host.to_owned()]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("the parameters are valid");
    (certificate.pem(), key.serialize_pem())
}

/// An acceptor of TLS connections with this certificate and key, as PEM.
pub(crate) fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    // The error means that another test installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("the key is valid");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("the certificate is valid")], key)
        .expect("key and certificate match");
    TlsAcceptor::from(Arc::new(config))
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the machine has randomness")
}

fn parameters(name: &str, hosts: Vec<String>) -> CertificateParams {
    let is_address = hosts.iter().any(|host| host.parse::<IpAddr>().is_ok());
    let mut params =
        CertificateParams::new(hosts).expect("the host of a recording is a name or an address");
    // A common name is at most 64 characters.
    if !is_address {
        params.distinguished_name.push(
            DnType::CommonName,
            name.chars().take(64).collect::<String>(),
        );
    }
    params
}
