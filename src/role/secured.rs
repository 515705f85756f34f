//! TLS and tokens of the servers that a process has: certificates and tokens are read again when
//! their files change.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use arc_swap::ArcSwap;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::ServerTlsSettings;
use tidings_core::runtime::http_server::tls::{
    self, ServerCertificate, Tls, TlsMetrics, TlsSettingNames,
};
use tidings_core::runtime::reload::Change;
use tidings_ingest::authentication::Tokens;

use crate::role::Context;

/// TLS with the certificate of the settings. `None` without a certificate.
///
/// # Errors
/// The certificate and its key cannot be used.
pub fn tls(
    context: &Context,
    settings: &ServerTlsSettings,
    names: TlsSettingNames,
    metrics: TlsMetrics,
    connections: usize,
) -> anyhow::Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (settings.cert.clone(), settings.key.clone()) else {
        return Ok(None);
    };
    let reloading = tls::from_files(names, cert, key).map_err(|error| anyhow!(error))?;
    let certificate = reloading.current();
    let gauge = metrics.expires.clone();
    let note = move |certificate: &ServerCertificate| {
        let expires = jiff::Timestamp::from_second(certificate.expires).unwrap_or_default();
        tracing::info!(code = codes::CERTIFICATE_LOADED, %expires, "certificate loaded");
        gauge.set(certificate.expires);
    };
    note(&certificate.load());
    let report = move |change, certificate: &ServerCertificate| match change {
        Change::Loaded => note(certificate),
        Change::Broken(error) => {
            tracing::error!(
                code = codes::CERTIFICATE_INVALID,
                error,
                "certificate unusable"
            );
        }
    };
    tokio::spawn(reloading.follow(context.stop.holding.clone(), report));
    Ok(Some(Tls::new(certificate, connections, metrics)))
}

/// The tokens of a file or folder, which `setting` names in errors.
///
/// # Errors
/// The tokens cannot be read.
pub fn tokens(
    context: &Context,
    setting: &'static str,
    path: PathBuf,
) -> anyhow::Result<Arc<ArcSwap<Tokens>>> {
    let reloading = Tokens::from_path(setting, path).map_err(|error| anyhow!(error))?;
    let current = reloading.current();
    note_tokens(setting, &current.load());
    let report = move |change, tokens: &Tokens| match change {
        Change::Loaded => note_tokens(setting, tokens),
        Change::Broken(error) => {
            tracing::error!(code = codes::TOKENS_INVALID, error, "tokens unusable");
        }
    };
    tokio::spawn(reloading.follow(context.stop.holding.clone(), report));
    Ok(current)
}

fn note_tokens(setting: &'static str, tokens: &Tokens) {
    let count = tokens.count();
    tracing::info!(code = codes::TOKENS_LOADED, setting, count, "tokens loaded");
}
