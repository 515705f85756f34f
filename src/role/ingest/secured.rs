//! TLS and authentication of the event endpoint, as the settings say.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::http_server::tls::{self, ServerCertificate, Tls};
use tidings_core::runtime::reload::Change;
use tidings_ingest::authentication::{Reviews, Tokens, Users};
use tidings_ingest::{Authentication, KubernetesReviewer};

use crate::role::Context;

/// TLS with the certificate of the settings, which is read again when its files change. `None`
/// without a certificate.
///
/// # Errors
/// The certificate and its key cannot be used.
pub fn tls(context: &Context, connections: usize) -> anyhow::Result<Option<Tls>> {
    let settings = &context.settings.ingest.tls;
    let (Some(cert), Some(key)) = (settings.cert.clone(), settings.key.clone()) else {
        return Ok(None);
    };
    let reloading = tls::from_files(cert, key).map_err(|error| anyhow!(error))?;
    let certificate = reloading.current();
    let metrics = context.metrics.clone();
    let note = move |certificate: &ServerCertificate| {
        let expires = jiff::Timestamp::from_second(certificate.expires).unwrap_or_default();
        tracing::info!(code = codes::CERTIFICATE_LOADED, %expires, "certificate loaded");
        let gauge = &metrics.ingest_tls_certificate_expire_timestamp_seconds;
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
    Ok(Some(Tls::new(
        certificate,
        connections,
        context.metrics.clone(),
    )))
}

/// The check of senders' tokens. `None` if the settings require none.
///
/// # Errors
/// The tokens cannot be read, or there is no client for reviews.
pub fn authentication(
    context: &Context,
    client: Option<kube::Client>,
) -> anyhow::Result<Option<Authentication<KubernetesReviewer>>> {
    let settings = &context.settings.ingest.auth;
    if !settings.is_required() {
        return Ok(None);
    }
    let reviewing = &settings.token_review;
    let reviews = if reviewing.enabled {
        let client = client.context("reviewing tokens needs a client")?;
        let reviewer = KubernetesReviewer::new(client, reviewing.audiences.clone());
        let check = context.health.optional_check("token-review");
        let users = Users::new(&reviewing.users);
        let reviews = Arc::new(Reviews::new(reviewer, users, check));
        let (probed, stop) = (reviews.clone(), context.stop.holding.clone());
        tokio::spawn(async move { probed.probe(stop).await });
        Some(reviews)
    } else {
        None
    };
    let tokens = match &settings.tokens {
        None => None,
        Some(path) => {
            let reloading = Tokens::from_path(path.clone()).map_err(|error| anyhow!(error))?;
            let current = reloading.current();
            note_tokens(&current.load());
            let report = |change, tokens: &Tokens| match change {
                Change::Loaded => note_tokens(tokens),
                Change::Broken(error) => {
                    tracing::error!(code = codes::TOKENS_INVALID, error, "tokens unusable");
                }
            };
            tokio::spawn(reloading.follow(context.stop.holding.clone(), report));
            Some(current)
        }
    };
    let outcomes = context.metrics.ingest_authentications_total.clone();
    Ok(Some(Authentication::new(tokens, reviews, outcomes)))
}

fn note_tokens(tokens: &Tokens) {
    let count = tokens.count();
    tracing::info!(code = codes::TOKENS_LOADED, count, "tokens loaded");
}

/// Warns if tokens would be sent over the network without TLS of Tidings.
pub fn warn_about_plaintext(settings: &Settings, address: SocketAddr) {
    let has_tls = settings.ingest.tls.cert.is_some();
    if settings.ingest.auth.is_required() && !has_tls && !address.ip().is_loopback() {
        tracing::warn!(
            code = codes::TOKENS_WITHOUT_TLS,
            %address,
            "tokens are received without TLS"
        );
    }
}
