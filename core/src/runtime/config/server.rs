//! TLS of the servers that Tidings has itself.

use std::path::PathBuf;

use serde::Serialize;

use super::read::Reader;
use super::value;

/// TLS of a server. Both files or neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTlsSettings {
    /// The certificate chain, as PEM.
    pub cert: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    pub key: Option<PathBuf>,
}

impl ServerTlsSettings {
    pub(super) fn read(reader: &mut Reader, cert_key: &'static str, key_key: &'static str) -> Self {
        let tls = Self {
            cert: reader.optional(cert_key, value::path),
            key: reader.optional(key_key, value::path),
        };
        reader.pair(cert_key, key_key, tls.cert.is_some(), tls.key.is_some());
        tls
    }
}
