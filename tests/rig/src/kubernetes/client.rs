//! Ways to speak with an API server: kubeconfigs, clients, kubectl.

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
use super::kubectl::{Said, kubectl};
use crate::wait::eventually;

/// The CRDs of the project.
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");

impl KubeApiServer {
    /// A kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path(ADMIN)
    }

    /// A kubeconfig of a service account, which is made where there is none. It may do what is
    /// bound to it.
    pub async fn kubeconfig_for(&self, namespace: &str, name: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, namespace);
        let account: ServiceAccount = read(json!({"metadata": {"name": name}}));
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            made => drop(made.expect("the service account is made")),
        }
        let spec = TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .expect("the token is made");
        let token = made.status.expect("a token was asked for").token;
        self.files
            .kubeconfig(&format!("{namespace}-{name}"), &self.url(), &token)
    }

    /// A client who may do everything. It belongs to the runtime of the test that asks.
    pub async fn client(&self) -> Client {
        self.client_of(&self.kubeconfig()).await
    }

    /// A client with a kubeconfig.
    pub async fn client_of(&self, kubeconfig: &Path) -> Client {
        // The error means that another test has done so.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the rig has written it");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .expect("the rig has written it");
        config.proxy_url = None;
        Client::try_from(config).expect("a client can be made")
    }

    /// Runs kubectl as the user who may do everything.
    pub async fn kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(arguments, "").await
    }

    /// Runs kubectl with something to read, as `apply -f -` does.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Said {
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

    /// `kubectl apply` of manifests, into a namespace where they name none.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> String {
        self.kubectl_with(&["apply", "--namespace", namespace, "-f", "-"], manifests)
            .await
            .expect_success()
    }

    /// Installs the project's CRDs, and waits until objects of theirs are taken.
    pub async fn install_crds(&self) {
        self.kubectl(&["apply", "--server-side", "-f", CRDS])
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

    /// A fresh namespace.
    pub async fn namespace(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let namespaces: Api<Namespace> = Api::all(self.client().await);
        let namespace: Namespace = read(json!({"metadata": {"name": name}}));
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("the namespace is made")
            .name_any()
    }
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the rig's own objects are valid")
}
