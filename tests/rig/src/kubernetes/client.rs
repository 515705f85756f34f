//! Access to an API server: kubeconfigs, clients, kubectl.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::KubeApiServer;
use super::files::ADMIN;
use super::kubectl::{KubectlOutput, kubectl};
use crate::wait::eventually;

/// The CRDs of the project.
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");

impl KubeApiServer {
    /// The kubeconfig of a cluster administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path(ADMIN)
    }

    /// The kubeconfig of a service account, which is created if necessary. The account has only the
    /// rights of its role bindings.
    pub async fn kubeconfig_for(&self, namespace: &str, name: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, namespace);
        let account: ServiceAccount = read(json!({"metadata": {"name": name}}));
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => drop(created.expect("the service account can be created")),
        }
        let token = self.token_of(namespace, name, &[]).await;
        self.files
            .kubeconfig(&format!("{namespace}-{name}"), &self.url(), &token)
    }

    /// A token of a service account, as `kubectl create token` makes it. Without audiences it is
    /// one for the API server.
    pub async fn token_of(&self, namespace: &str, name: &str, audiences: &[&str]) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            audiences: audiences.iter().map(|&name| name.to_owned()).collect(),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let created = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .expect("a token can be created");
        created.status.expect("the response has a token").token
    }

    /// A client with all rights. It belongs to the runtime of the calling test.
    pub async fn client(&self) -> Client {
        self.client_of(&self.kubeconfig()).await
    }

    /// A client with a kubeconfig.
    pub async fn client_of(&self, kubeconfig: &Path) -> Client {
        // The error means that another test installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the rig wrote the file");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .expect("the rig wrote the file");
        config.proxy_url = None;
        Client::try_from(config).expect("the kubeconfig is valid")
    }

    /// Runs kubectl with all rights.
    pub async fn kubectl(&self, arguments: &[&str]) -> KubectlOutput {
        self.kubectl_with(arguments, "").await
    }

    /// Runs kubectl with this standard input, as for `apply -f -`.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> KubectlOutput {
        let executable = Self::executables().join("kubectl");
        kubectl(
            &executable,
            &self.kubeconfig(),
            &self.folder().join("cache"),
            arguments,
            input,
        )
        .await
    }

    /// `kubectl apply` of manifests; `namespace` is the default for those that name none.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> String {
        self.kubectl_with(&["apply", "--namespace", namespace, "-f", "-"], manifests)
            .await
            .expect_success()
    }

    /// Installs the project's CRDs, and waits until they are served.
    pub async fn install_crds(&self) {
        self.kubectl(&["apply", "--server-side", "-k", CRDS])
            .await
            .expect_success();
        let client = self.client().await;
        eventually("the CRDs are served", async || {
            for kind in ["alerts", "providers"] {
                for version in ["v1beta1", "v1beta2", "v1beta3"] {
                    let path = format!("/apis/notification.toolkit.fluxcd.io/{version}/{kind}");
                    let request = http::Request::get(path)
                        .body(Vec::new())
                        .expect("the request is valid");
                    client.request::<Value>(request).await.ok()?;
                }
            }
            Some(())
        })
        .await;
    }

    /// Creates a namespace.
    pub async fn namespace(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let namespaces: Api<Namespace> = Api::all(self.client().await);
        let namespace: Namespace = read(json!({"metadata": {"name": name}}));
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("the namespace can be created")
            .name_any()
    }
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the rig's objects are valid")
}
