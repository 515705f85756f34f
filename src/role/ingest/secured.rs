//! TLS and authentication of the event endpoint, as the settings say.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::http_server::tls::{Tls, TlsMetrics, TlsSettingNames};
use tidings_ingest::authentication::{Reviews, Users};
use tidings_ingest::{Authentication, KubernetesReviewer};

use crate::role::{Context, secured};

/// TLS of the event endpoint. `None` without a certificate.
///
/// # Errors
/// The certificate and its key cannot be used.
pub fn tls(context: &Context, connections: usize) -> anyhow::Result<Option<Tls>> {
    let names = TlsSettingNames {
        cert: "ingest.tls.cert",
        key: "ingest.tls.key",
    };
    let metrics = &context.metrics;
    let metrics = TlsMetrics {
        handshakes: metrics.ingest_tls_handshakes.clone(),
        failures: metrics.ingest_tls_handshakes_failed_total.clone(),
        expires: metrics
            .ingest_tls_certificate_expire_timestamp_seconds
            .clone(),
    };
    secured::tls(
        context,
        &context.settings.ingest.tls,
        names,
        metrics,
        connections,
    )
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
        Some(path) => Some(secured::tokens(
            context,
            "ingest.auth.tokens",
            path.clone(),
        )?),
    };
    let outcomes = context.metrics.ingest_authentications_total.clone();
    Ok(Some(Authentication::new(tokens, reviews, outcomes)))
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
