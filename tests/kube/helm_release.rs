//! A release of the chart through its life, on a real API server: install, upgrade, change of the
//! mode, rollback, uninstall.

use std::path::Path;

use serde_json::Value;
use tidings_rig::KubeApiServer;

use crate::deploy::{output_of, project, restricted_namespace};
use crate::flux_crds::install_flux;
use crate::object::GROUP;

const NAMESPACE: &str = "tidings";

/// Runs helm with the release `tidings` of [`NAMESPACE`], as a cluster administrator.
async fn helm(server: &KubeApiServer, arguments: &[&str]) {
    helm_in(server, NAMESPACE, arguments).await;
}

async fn helm_in(server: &KubeApiServer, namespace: &str, arguments: &[&str]) {
    let helm = output_of(&project("tools/deploy-tool.sh"), &["helm"]).await;
    let kubeconfig = server.kubeconfig().display().to_string();
    let access = ["--kubeconfig", &kubeconfig, "--namespace", namespace];
    output_of(Path::new(helm.trim()), &[arguments, &access].concat()).await;
}

/// One object of the release, or null.
async fn object(server: &KubeApiServer, kind: &str, name: &str) -> Value {
    let get = ["get", kind, name, "--ignore-not-found", "--output", "json"];
    let printed = server
        .kubectl(&[&get[..], &["--namespace", NAMESPACE]].concat())
        .await
        .expect_success();
    serde_json::from_str(&printed).unwrap_or_default()
}

/// The password of the NATS servers, in base64.
async fn password(server: &KubeApiServer) -> Value {
    object(server, "secret", "tidings-nats").await["data"]["password"].clone()
}

/// The annotation that replaces pods when the settings change.
async fn checksum(server: &KubeApiServer) -> Value {
    let worker = object(server, "deployment", "tidings-worker").await;
    worker["spec"]["template"]["metadata"]["annotations"]["checksum/settings"].clone()
}

/// The release that owns the CRD of Alerts, or null.
async fn owner_of_alerts(server: &KubeApiServer) -> Value {
    let crd = object(server, "crd", &format!("alerts.{GROUP}")).await;
    assert!(!crd.is_null(), "the CRD of Alerts exists");
    crd["metadata"]["annotations"]["meta.helm.sh/release-name"].clone()
}

#[tokio::test]
async fn a_release_keeps_its_password_and_the_crds_of_flux() {
    let chart = project("deploy/chart").display().to_string();
    for flux_is_installed in [false, true] {
        let server = KubeApiServer::start().await;
        restricted_namespace(&server, NAMESPACE).await;
        if flux_is_installed {
            install_flux(&server).await;
        }
        let owner = if flux_is_installed {
            Value::Null
        } else {
            "tidings".into()
        };
        let standard = "--set=mode=standard";

        helm(&server, &["install", "tidings", &chart, standard]).await;
        assert_eq!(owner_of_alerts(&server).await, owner);
        let (first_password, first_checksum) = (password(&server).await, checksum(&server).await);
        assert!(first_password.is_string() && first_checksum.is_string());

        let changed = [standard, "--set=cluster=prod"];
        helm(
            &server,
            &[&["upgrade", "tidings", &chart][..], &changed].concat(),
        )
        .await;
        assert_eq!(owner_of_alerts(&server).await, owner);
        assert_eq!(password(&server).await, first_password);
        assert_ne!(checksum(&server).await, first_checksum);

        helm(
            &server,
            &["upgrade", "tidings", &chart, "--set=mode=single"],
        )
        .await;
        assert!(
            object(&server, "deployment", "tidings-worker")
                .await
                .is_null()
        );
        assert!(!object(&server, "statefulset", "tidings").await.is_null());

        helm(&server, &["rollback", "tidings", "1"]).await;
        assert_eq!(checksum(&server).await, first_checksum);
        assert_eq!(password(&server).await, first_password);

        helm(&server, &["uninstall", "tidings"]).await;
        assert!(
            object(&server, "deployment", "tidings-worker")
                .await
                .is_null()
        );
        // Alerts and Providers are still there, and another release leaves them alone.
        let elsewhere = "tidings-elsewhere";
        restricted_namespace(&server, elsewhere).await;
        helm_in(&server, elsewhere, &["install", "tidings", &chart]).await;
        assert_eq!(owner_of_alerts(&server).await, owner);
    }
}
