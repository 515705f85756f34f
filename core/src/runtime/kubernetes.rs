//! The Kubernetes API: the clients, and leader election among replicas.

pub mod kind;
pub mod lease;

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::runtime::config::MemberRules;
use crate::runtime::reload::read_file;

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
    /// The `tokenFile` of a kubeconfig is missing or invalid.
    #[error("{setting}: tokenFile of the kubeconfig: {why}")]
    TokenFile {
        /// The setting that names the kubeconfig.
        setting: String,
        /// The file and its problem.
        why: String,
    },
    /// The configuration is invalid.
    #[error("cannot use the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
}

/// How long a connection to the API server of a member may take. Another attempt follows.
const MEMBER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a token in a file.
const MAX_TOKEN_FILE: usize = 64 << 10;
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
    client(config, || "kubernetes.kubeconfig".to_owned())
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
    client(config, || format!("rules.sources: cluster={}", member.name))
}

fn client(config: Config, setting: impl Fn() -> String) -> Result<Client, ConnectError> {
    if let (None, Some(file)) = (&config.auth_info.token, &config.auth_info.token_file) {
        let refuse = |why| ConnectError::TokenFile {
            setting: setting(),
            why,
        };
        check_token_file(Path::new(file)).map_err(refuse)?;
    }
    Ok(Client::try_from(config)?)
}

/// The client sends the file as it is. With a line break at its end every request would fail, and
/// the error would not say why.
fn check_token_file(file: &Path) -> Result<(), String> {
    let token = read_file(file, MAX_TOKEN_FILE)?;
    let problem = match token.last() {
        None => "is empty; write the token to it",
        Some(b'\n' | b'\r') => {
            "ends with a line break, which would be sent as part of the token; write the token \
             without it, as `printf %s` does"
        }
        Some(_) if !token.iter().all(u8::is_ascii_graphic) => {
            "has characters that a token cannot have"
        }
        Some(_) => return Ok(()),
    };
    Err(format!("{} {problem}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_that_cannot_be_sent_is_refused_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for (content, problem) in [
            ("s3cr3t.token_~-", None),
            ("s3cr3t\n", Some("ends with a line break")),
            ("s3cr3t\r\n", Some("ends with a line break")),
            ("", Some("is empty")),
            ("s3cr3t token", Some("has characters")),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = check_token_file(&file).err();
            let names = |problem: &str| {
                let error = error.as_deref().unwrap_or_default();
                error.contains(problem) && error.contains("token") && !error.contains("s3cr3t")
            };
            assert!(problem.map_or(error.is_none(), names), "{content:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(check_token_file(&file).is_err());
    }
}
