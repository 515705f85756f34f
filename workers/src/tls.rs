//! TLS for the services of Providers: which certificates to trust, and our own.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tidings_core::{Failure, Reason};
use tidings_rules::Tls;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::http::invalid::Invalid;

const NO_AUTHORITY: &str = "spec.certSecretRef: the key ca.crt holds no PEM certificate; add one";
const MISMATCHED: &str =
    "spec.certSecretRef: tls.crt and tls.key are not a PEM certificate and its key";

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificates to trust, and our own certificate.
pub struct Trust {
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<ChainAndKey>,
}

impl Trust {
    /// Reads the certificates of a Provider. Without authorities those of the system are trusted.
    ///
    /// # Errors
    /// A certificate is invalid; the error names its key.
    pub fn new(tls: Option<&Tls>) -> Result<Self, Invalid> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> =
            match tls.and_then(|tls| tls.authorities.as_ref()) {
                Some(authorities) => Arc::new(Configured::new(authorities.bytes())?),
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

    /// Verifies the certificates of servers.
    pub fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        self.verifier.clone()
    }

    /// The TLS settings with this verifier.
    ///
    /// # Errors
    /// The Provider's certificate and key do not match.
    pub fn config(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Invalid> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(crypto).with_safe_default_protocol_versions();
        let builder = builder
            .expect("the provider has the default versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some((chain, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|_| Invalid::from(MISMATCHED))
    }
}

fn identity(tls: &Tls) -> Result<Option<ChainAndKey>, Invalid> {
    let Some((certificate, key)) = &tls.identity else {
        return Ok(None);
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.bytes()).map_err(|_| MISMATCHED)?;
    Ok(Some((chain.map_err(|_| MISMATCHED)?, key)))
}

/// Trusts what the configured authorities signed, and a server's certificate that is itself
/// configured, as a self-signed one often is. Its name and dates count, too.
#[derive(Debug)]
struct Configured {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Configured {
    fn new(pem: &[u8]) -> Result<Self, Invalid> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|_| NO_AUTHORITY)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| NO_AUTHORITY)?;
        }
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let authorities = WebPkiServerVerifier::builder_with_provider(roots.into(), crypto).build();
        Ok(Self {
            authorities: authorities.map_err(|_| NO_AUTHORITY)?,
            certificates,
        })
    }

    fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        let is_same = |configured: &CertificateDer<'_>| configured.as_ref() == certificate.as_ref();
        self.certificates.iter().any(is_same)
    }
}

impl ServerCertVerifier for Configured {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let signed = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match signed {
            Err(_) if self.contains(end_entity) => verify_itself(end_entity, server_name, now),
            signed => signed,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Checks the dates and the name of a certificate that needs no authority.
fn verify_itself(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    Ok(ServerCertVerified::assertion())
}

/// The failure of a connection to `host`, if the server's certificate is its cause.
pub fn untrusted(host: &str, error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(Error::InvalidCertificate(why)) = tls_error(cause) {
            let detail = format!(
                "the certificate of {host} is not trusted: {why}; {}",
                remedy(why)
            );
            return Some(Failure::transient(Reason::UntrustedCertificate, detail));
        }
        next = cause.source();
    }
    None
}

/// An error of TLS, perhaps within an I/O error. The `source` of an I/O error skips its content.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    error.downcast_ref().or_else(|| {
        let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
        tls_error(inner)
    })
}

fn remedy(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew it",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a name of the certificate in the address"
        }
        _ => {
            "add its authority, or the certificate itself, as ca.crt to the Secret of \
             spec.certSecretRef"
        }
    }
}

#[cfg(test)]
mod tests;
