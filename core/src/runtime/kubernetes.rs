//! The Kubernetes API: the client, and leader election among replicas.

pub mod kind;
pub mod lease;

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// No client for the Kubernetes API can be built.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is missing or invalid.
    #[error("kubernetes.kubeconfig: cannot use {file}: {source}")]
    Kubeconfig {
        /// The file.
        file: String,
        /// The error.
        source: kube::config::KubeconfigError,
    },
    /// There is neither a service account nor a kubeconfig.
    #[error("no Kubernetes API is configured: {0}; outside a cluster pass --kubeconfig FILE")]
    Unknown(kube::config::InferConfigError),
    /// The configuration is invalid.
    #[error("cannot use the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
}

/// The path of the service account's token in a pod.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Whether a cluster is configured: by a kubeconfig in the settings, or because the process runs in
/// a pod.
pub fn is_configured(kubeconfig: Option<&Path>) -> bool {
    kubeconfig.is_some() || Path::new(TOKEN).exists()
}

/// Builds a client from a kubeconfig. Without one, from `KUBECONFIG`, from the user's own file, or
/// from the service account of the pod. Does not connect yet.
///
/// # Errors
/// No configuration is found, or it is invalid.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        None => Config::infer().await.map_err(ConnectError::Unknown)?,
        Some(file) => {
            let refuse = |source| ConnectError::Kubeconfig {
                file: file.display().to_string(),
                source,
            };
            let read = Kubeconfig::read_from(file).map_err(refuse)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(refuse)?
        }
    };
    Ok(Client::try_from(config)?)
}
