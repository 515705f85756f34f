//! The Kubernetes API: the clients, and leader election among replicas.

pub mod kind;
pub mod lease;

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::runtime::config::MemberRules;

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
    /// The kubeconfig of a member of the fleet is missing or invalid.
    #[error("rules.sources: cluster={name}: cannot use {file}: {source}")]
    Member {
        /// The name of the member.
        name: String,
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

/// How long a connection to the API server of a member may take. Another attempt follows.
const MEMBER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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

/// Builds a client for the API server of a member of the fleet. Does not connect yet.
///
/// # Errors
/// The kubeconfig cannot be read, or it is invalid.
pub async fn connect_to_member(member: &MemberRules) -> Result<Client, ConnectError> {
    let refuse = |source| ConnectError::Member {
        name: member.name.clone(),
        file: member.kubeconfig.display().to_string(),
        source,
    };
    let read = Kubeconfig::read_from(&member.kubeconfig).map_err(refuse)?;
    let options = KubeConfigOptions {
        context: member.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(read, &options).await;
    let mut config = config.map_err(refuse)?;
    config.connect_timeout = Some(MEMBER_CONNECT_TIMEOUT);
    Ok(Client::try_from(config)?)
}
