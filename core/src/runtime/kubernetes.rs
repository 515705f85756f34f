//! The Kubernetes API: how a role reaches it, and how one of several replicas leads.

pub mod kind;
pub mod lease;

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The API server can't be reached as it was said.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("kubernetes.kubeconfig: {file} can't be used: {source}")]
    Kubeconfig {
        /// The file.
        file: String,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// There is neither a service account nor a kubeconfig.
    #[error("no way to the Kubernetes API is known: {0}; outside a cluster give --kubeconfig FILE")]
    Unknown(kube::config::InferConfigError),
    /// The client can't be built.
    #[error("the Kubernetes API can't be used: {0}")]
    Client(#[from] kube::Error),
}

/// A pod has its service account's token here.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Whether somebody has said which cluster is meant: by a kubeconfig in the settings, or by running
/// us in it.
pub fn is_at_hand(kubeconfig: Option<&Path>) -> bool {
    kubeconfig.is_some() || Path::new(TOKEN).exists()
}

/// A client for the API server of a kubeconfig; without one, of `KUBECONFIG`, of the user's own
/// file, or of the cluster that we run in.
///
/// # Errors
/// No configuration is found, or it can't be used. That the server does not answer is no error
/// here.
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
