//! The console, for roles that route events. It has an address and connections of its own, so it
//! takes none from the event endpoint and the admin endpoint.

use std::sync::Arc;

use tidings_core::bus::Bus;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::http_server::connections::Connections;
use tidings_core::runtime::http_server::tls::{TlsMetrics, TlsSettingNames};
use tidings_core::runtime::kubernetes;
use tidings_core::runtime::{config::Settings, http_server};
use tidings_ingest::KubernetesReviewer;
use tidings_ingest::authentication::{Reviews, Users};
use tidings_workers::http::HttpClients;
use tokio::net::TcpListener;

use crate::console::{
    Access, Console, Kubernetes, KubernetesAuthorizer, MAX_CONNECTIONS, Parts, Permissions,
};
use crate::process;
use crate::role::rules::ActiveRules;
use crate::role::{Context, secured};

/// Binds the address of the console. `None` if the settings have none.
///
/// # Errors
/// The address cannot be used.
pub async fn bind(settings: &Settings) -> anyhow::Result<Option<TcpListener>> {
    match settings.console.listen {
        Some(address) => process::bind("console", address).await.map(Some),
        None => Ok(None),
    }
}

/// Starts to answer requests, if there is a listener.
///
/// # Errors
/// Certificate, tokens, a link template or the Kubernetes API cannot be used.
pub async fn start(
    context: &Context,
    listener: Option<TcpListener>,
    bus: &Bus,
    rules: &ActiveRules,
    clusters: &Arc<LiveClusters>,
    http_clients: &HttpClients,
) -> anyhow::Result<()> {
    let Some(listener) = listener else {
        return Ok(());
    };
    let settings = &context.settings.console;
    let tokens = |setting, path: &Option<std::path::PathBuf>| {
        let path = path.clone();
        path.map(|path| secured::tokens(context, setting, path))
            .transpose()
    };
    let access = Access {
        hosts: settings.hosts.clone(),
        view: tokens("console.tokens.view", &settings.tokens.view)?,
        operate: tokens("console.tokens.operate", &settings.tokens.operate)?,
        kubernetes: kubernetes_users(context).await?,
    };
    let metrics = &context.metrics;
    let names = TlsSettingNames {
        cert: "console.tls.cert",
        key: "console.tls.key",
    };
    let counted = TlsMetrics {
        handshakes: metrics.console_tls_handshakes.clone(),
        failures: metrics.console_tls_handshakes_failed_total.clone(),
        expires: metrics
            .console_tls_certificate_expire_timestamp_seconds
            .clone(),
    };
    let tls = secured::tls(context, &settings.tls, names, counted, MAX_CONNECTIONS)?;
    let address = listener.local_addr()?;
    if settings.needs_token() && tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            code = codes::TOKENS_WITHOUT_TLS,
            %address,
            "tokens are received without TLS"
        );
    }
    let stop = context.stop.pulling.clone();
    let parts = Parts {
        bus: bus.clone(),
        rules: rules.live.clone(),
        scaling: context.scaling.clone(),
        metrics: metrics.clone(),
        settings: context.settings.clone(),
        clusters: clusters.clone(),
        stop: stop.clone(),
    };
    let router = Console::start(parts, http_clients.clone(), access)?.router();
    let connections = Connections::new(MAX_CONNECTIONS, metrics.console_connections.clone());
    tracing::info!(code = codes::LISTENING, role = "console", %address, "listening");
    let serving =
        http_server::serve_with(listener, router, connections, tls, metrics.clone(), stop);
    context.tasks.spawn(serving);
    Ok(())
}

/// Users of the Kubernetes API, if the settings accept their tokens.
async fn kubernetes_users(context: &Context) -> anyhow::Result<Option<Arc<Kubernetes>>> {
    let settings = &context.settings;
    if !settings.console.kubernetes.enabled {
        return Ok(None);
    }
    let client = kubernetes::connect(settings.kubernetes.kubeconfig.as_deref()).await?;
    let audiences = settings.console.kubernetes.audiences.clone();
    let reviewer = KubernetesReviewer::new(client.clone(), audiences);
    // Events are routed without it.
    let check = context.health.warning_check("console-token-review");
    let reviews = Reviews::new(reviewer, Users::new(&[]), check).with_groups();
    let permissions = Permissions::new(KubernetesAuthorizer::new(client));
    Ok(Some(Arc::new(Kubernetes {
        reviews,
        permissions,
    })))
}
