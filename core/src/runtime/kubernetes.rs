//! The Kubernetes API: the clients, and leader election among replicas.

pub mod kind;
pub mod lease;

use std::path::Path;
use std::time::Duration;

use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::runtime::config::MemberRules;
use crate::runtime::reload::read_file;

/// No client for the Kubernetes API can be built.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig is missing or invalid.
    #[error("{setting}: cannot use {file}: {why}")]
    Kubeconfig {
        /// The setting that names the file.
        setting: String,
        /// The file.
        file: String,
        /// Its problem.
        why: String,
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
    Client(String),
}

/// How long a connection to the API server of a member may take. Another attempt follows.
const MEMBER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The setting that names the kubeconfig of the own cluster.
const SETTING: &str = "kubernetes.kubeconfig";
/// The most bytes of a kubeconfig, and of a certificate or key that it names.
const MAX_FILE: usize = 1 << 20;
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
            let options = KubeConfigOptions::default();
            let read = async { config_of(read(file)?, &options).await };
            read.await.map_err(|why| ConnectError::Kubeconfig {
                setting: SETTING.to_owned(),
                file: file.display().to_string(),
                why,
            })?
        }
    };
    client(config, || SETTING.to_owned())
}

/// Builds a client for the API server of a member of the fleet. Does not connect yet.
///
/// A member may have written the file, so no command in it is run.
///
/// # Errors
/// The kubeconfig cannot be read, or it is invalid.
pub async fn connect_to_member(member: &MemberRules) -> Result<Client, ConnectError> {
    let setting = || format!("rules.sources: cluster={}", member.name);
    let options = KubeConfigOptions {
        context: member.context.clone(),
        ..KubeConfigOptions::default()
    };
    let read = async {
        let read = read(&member.kubeconfig)?;
        check_without_commands(&read)?;
        check_own_files(&read, &member.kubeconfig)?;
        config_of(read, &options).await
    };
    let mut config = read.await.map_err(|why| ConnectError::Kubeconfig {
        setting: setting(),
        file: member.kubeconfig.display().to_string(),
        why,
    })?;
    config.connect_timeout = Some(MEMBER_CONNECT_TIMEOUT);
    client(config, setting)
}

/// Reads a kubeconfig. The library reads files without a bound.
fn read(file: &Path) -> Result<Kubeconfig, String> {
    read_file(file, MAX_FILE)?;
    let read = Kubeconfig::read_from(file).map_err(|error| error.to_string())?;
    let clusters = read
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref());
    let users = read
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref());
    let of_clusters = clusters.filter_map(|cluster| cluster.certificate_authority.as_ref());
    let of_users = users.flat_map(|user| [&user.client_certificate, &user.client_key]);
    for named in of_clusters.chain(of_users.flatten()) {
        read_file(Path::new(named), MAX_FILE)?;
    }
    Ok(read)
}

/// Checks that no user of a kubeconfig has a command that prints credentials.
fn check_without_commands(kubeconfig: &Kubeconfig) -> Result<(), String> {
    for named in &kubeconfig.auth_infos {
        let user = named.auth_info.as_ref();
        if user.is_some_and(|user| user.exec.is_some() || user.auth_provider.is_some()) {
            return Err(format!(
                "user {:?} has exec or auth-provider, which is not run for a member; give the user \
                 a token, a tokenFile or a client certificate",
                named.name
            ));
        }
    }
    Ok(())
}

/// Checks that a kubeconfig names only files below its own folder. Its server would get the content
/// of a `tokenFile`, such as the token of the hub's own service account.
fn check_own_files(kubeconfig: &Kubeconfig, file: &Path) -> Result<(), String> {
    let unreadable = |path: &Path| format!("{} cannot be read", path.display());
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|_| unreadable(folder))?;
    let clusters = kubeconfig.clusters.iter();
    let clusters = clusters.filter_map(|named| named.cluster.as_ref());
    if clusters.clone().any(|cluster| cluster.proxy_url.is_some()) {
        return Err("proxy-url is not used for a member; remove it".to_owned());
    }
    let of_clusters = clusters.filter_map(|cluster| cluster.certificate_authority.as_ref());
    let users = kubeconfig.auth_infos.iter();
    let users = users.filter_map(|named| named.auth_info.as_ref());
    let of_users =
        users.flat_map(|user| [&user.token_file, &user.client_certificate, &user.client_key]);
    for named in of_clusters.chain(of_users.flatten()) {
        let named = Path::new(named);
        let found = named.canonicalize().map_err(|_| unreadable(named))?;
        if !found.starts_with(&folder) {
            return Err(format!(
                "{} is not in the folder of the kubeconfig; move it there",
                named.display()
            ));
        }
    }
    Ok(())
}

async fn config_of(kubeconfig: Kubeconfig, options: &KubeConfigOptions) -> Result<Config, String> {
    let config = Config::from_custom_kubeconfig(kubeconfig, options).await;
    config.map_err(|error| error.to_string())
}

fn client(config: Config, setting: impl Fn() -> String) -> Result<Client, ConnectError> {
    if let (None, Some(file)) = (&config.auth_info.token, &config.auth_info.token_file) {
        let refuse = |why| ConnectError::TokenFile {
            setting: setting(),
            why,
        };
        check_token_file(Path::new(file)).map_err(refuse)?;
    }
    Client::try_from(config).map_err(|error| ConnectError::Client(explained(&error)))
}

/// The error without what a command of the kubeconfig printed.
fn explained(error: &kube::Error) -> String {
    failed_command(error).unwrap_or_else(|| error.to_string())
}

/// What to say if the cause of an error is a command in the kubeconfig. Its error has what the
/// command printed, which may be a token.
pub fn failed_command(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<AuthError>() {
            Some(AuthError::AuthExecRun { out, .. }) => {
                let status = out.status;
                return Some(format!(
                    "the command in exec of the kubeconfig failed: {status}"
                ));
            }
            Some(AuthError::AuthExecParse(_)) => {
                let problem = "the command in exec of the kubeconfig printed no ExecCredential";
                return Some(problem.to_owned());
            }
            _ => cause = error.source(),
        }
    }
    None
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
    fn what_a_command_in_the_kubeconfig_printed_is_not_shown() {
        let out = std::process::Output {
            status: std::process::ExitStatus::default(),
            stdout: b"s3cr3t".to_vec(),
            stderr: b"s3cr3t".to_vec(),
        };
        let failed = AuthError::AuthExecRun {
            cmd: "print --token s3cr3t".to_owned(),
            out: Box::new(out),
        };
        let error = kube::Error::Auth(failed);
        let text = explained(&error);
        assert!(text.contains("exec") && !text.contains("s3cr3t"), "{text}");
    }

    #[tokio::test]
    async fn no_command_in_the_kubeconfig_of_a_member_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let (file, proof) = (folder.path().join("config"), folder.path().join("ran"));
        let exec = format!(
            "{{apiVersion: client.authentication.k8s.io/v1, command: touch, args: [{}]}}",
            proof.display()
        );
        for user in [
            format!("{{exec: {exec}}}"),
            "{auth-provider: {name: gcp, config: {}}}".to_owned(),
        ] {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, \
                 cluster: {{server: \"https://127.0.0.1:1\"}}}}], contexts: [{{name: c, context: \
                 {{cluster: c, user: u}}}}], users: [{{name: u, user: {user}}}]}}"
            );
            std::fs::write(&file, text).unwrap();
            let member = MemberRules {
                name: "dev".to_owned(),
                kubeconfig: file.clone(),
                context: None,
            };
            let error = connect_to_member(&member).await.err().unwrap().to_string();
            for part in ["cluster=dev", "config", "exec", "tokenFile"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        assert!(!proof.exists());
    }

    #[test]
    fn the_kubeconfig_of_a_member_names_files_of_its_own_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own"), folder.path().join("token"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(&other, "t").unwrap();
        std::fs::write(own.join("token"), "t").unwrap();
        std::os::unix::fs::symlink(&other, own.join("link")).unwrap();
        let file = own.join("config");
        let check = |text: String| {
            std::fs::write(&file, text).unwrap();
            check_own_files(&Kubeconfig::read_from(&file).unwrap(), &file)
        };
        for (path, is_own) in [
            ("token", true),
            ("../own/token", true),
            ("../token", false),
            ("link", false),
            ("/etc/hostname", false),
        ] {
            for field in ["tokenFile", "client-certificate", "client-key"] {
                let checked = check(format!(
                    "{{users: [{{name: u, user: {{{field}: {path}}}}}]}}"
                ));
                assert_eq!(checked.is_ok(), is_own, "{field} {path}");
            }
            let cluster = format!("{{certificate-authority: {path}}}");
            let checked = check(format!("{{clusters: [{{name: c, cluster: {cluster}}}]}}"));
            assert_eq!(checked.is_ok(), is_own, "{path}");
        }
        let proxy = "{clusters: [{name: c, cluster: {proxy-url: \"http://a\"}}]}";
        assert!(check(proxy.to_owned()).is_err());
    }

    #[test]
    fn a_kubeconfig_and_what_it_names_have_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        for text in [
            " ".repeat(MAX_FILE + 1),
            "{clusters: [{name: c, cluster: {certificate-authority: /dev/zero}}]}".to_owned(),
            "{users: [{name: u, user: {client-key: /dev/zero}}]}".to_owned(),
        ] {
            std::fs::write(&file, text).unwrap();
            assert!(read(&file).is_err());
        }
        assert!(read(Path::new("/dev/zero")).is_err());
    }

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
