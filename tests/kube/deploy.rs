//! Everything in `deploy/` that starts Tidings, on a real API server: both overlays, the components
//! and the chart with its edge values. Pod Security `restricted` is enforced.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_rig::{KubeApiServer, KubectlOutput, eventually};
use tokio::process::Command;

/// Kinds of other projects that the manifests can contain: group, version, kind, plural.
const FOREIGN_KINDS: [(&str, &str, &str, &str); 3] = [
    ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    (
        "monitoring.coreos.com",
        "v1",
        "PrometheusRule",
        "prometheusrules",
    ),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
];

pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The standard output of a program that must succeed.
pub async fn output_of(program: &Path, arguments: &[&str]) -> String {
    let run = Command::new(program).args(arguments).output().await;
    let output = run.expect("the program can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {errors}",
        program.display()
    );
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

/// The objects of a kustomization.
async fn kustomize(folder: &Path) -> String {
    let folder = folder.display().to_string();
    output_of(&project("tools/kustomize.sh"), &[&folder]).await
}

/// The objects that the chart renders as the release and in the namespace `name`.
async fn chart(name: &str, flags: &[&str]) -> String {
    let helm = output_of(&project("tools/deploy-tool.sh"), &["helm"]).await;
    let folder = project("deploy/chart").display().to_string();
    let fixed = ["template", name, &folder, "--namespace", name];
    output_of(Path::new(helm.trim()), &[&fixed, flags].concat()).await
}

/// Stubs of the CRDs of other projects.
fn foreign_crds() -> String {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let items = FOREIGN_KINDS.map(|(group, version, kind, plural)| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "scope": "Namespaced",
                "versions": [{
                    "name": version,
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": schema},
                }],
            },
        })
    });
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// A server that knows the kinds of other projects.
async fn server() -> KubeApiServer {
    let server = KubeApiServer::start().await;
    apply(&server, &foreign_crds(), &[]).await.expect_success();
    eventually("the CRDs are served", async || {
        for (group, _, _, plural) in FOREIGN_KINDS {
            let name = format!("{plural}.{group}");
            let listed = server.kubectl(&["get", &name, "--all-namespaces"]).await;
            listed.success.then_some(())?;
        }
        Some(())
    })
    .await;
    server
}

async fn apply(server: &KubeApiServer, manifests: &str, flags: &[&str]) -> KubectlOutput {
    let fixed = ["apply", "--server-side", "--filename", "-"];
    server
        .kubectl_with(&[&fixed, flags].concat(), manifests)
        .await
}

/// Creates a namespace that enforces Pod Security `restricted`, and warns of violations by
/// Deployments and StatefulSets.
pub async fn restricted_namespace(server: &KubeApiServer, name: &str) {
    let levels = json!({
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    });
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels},
    });
    apply(server, &namespace.to_string(), &[])
        .await
        .expect_success();
}

/// Applies manifests dry, then really, and checks that there is neither an error nor a warning.
async fn applies_cleanly(server: &KubeApiServer, what: &str, manifests: &str) {
    for flags in [&["--dry-run=server"][..], &[]] {
        let output = apply(server, manifests, flags).await;
        assert!(
            output.success && output.errors.is_empty(),
            "{what} {flags:?}: {output:?}"
        );
    }
}

/// The pods of all workloads of a namespace, as their controllers would create them.
async fn pods(server: &KubeApiServer, namespace: &str) -> Vec<Value> {
    let get = ["get", "deployments,statefulsets", "--output", "json"];
    let flags = ["--namespace", namespace];
    let printed = server.kubectl(&[&get[..], &flags].concat()).await;
    let list: Value = serde_json::from_str(&printed.expect_success()).expect("kubectl prints JSON");
    let workloads = list["items"].as_array().expect("there is a list");
    let pod = |workload: &Value| {
        let template = &workload["spec"]["template"];
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template["metadata"],
            "spec": template["spec"],
        });
        pod["metadata"]["name"] = workload["metadata"]["name"].clone();
        // The controller of StatefulSets adds the volumes of the claims.
        for claim in workload["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = &claim["metadata"]["name"];
            let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
            let volumes = pod["spec"]["volumes"].as_array_mut();
            volumes.expect("a pod has volumes").push(volume);
        }
        pod
    };
    workloads.iter().map(pod).collect()
}

/// Whether the API server admits a pod.
async fn admits(server: &KubeApiServer, namespace: &str, pod: &Value) -> KubectlOutput {
    let create = ["create", "--dry-run=server", "--filename", "-"];
    let flags = ["--namespace", namespace];
    server
        .kubectl_with(&[&create[..], &flags].concat(), &pod.to_string())
        .await
}

/// Checks that the namespace admits every pod, and none with a writable root file system or the
/// like.
async fn pods_are_admitted(server: &KubeApiServer, namespace: &str, expected: usize) {
    let pods = pods(server, namespace).await;
    assert_eq!(pods.len(), expected, "workloads of {namespace}");
    for mut pod in pods {
        let name = pod["metadata"]["name"].clone();
        let admitted = admits(server, namespace, &pod).await;
        assert!(admitted.success, "{name}: {admitted:?}");
        let context = &mut pod["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        context["allowPrivilegeEscalation"] = true.into();
        let denied = admits(server, namespace, &pod).await;
        assert!(denied.errors.contains("PodSecurity"), "{name}: {denied:?}");
    }
}

#[tokio::test]
async fn the_api_server_accepts_the_overlays_and_admits_their_pods() {
    let server = server().await;
    let scratch = TempDir::new().expect("a folder can be created");
    for (overlay, components, workloads) in [
        ("single", &["monitoring", "shadow", "tee"][..], 1),
        ("standard", &["monitoring", "nats-tls", "shadow", "tee"], 4),
        ("member", &["monitoring", "tee"], 1),
    ] {
        // Kustomize accepts only relative folders, and those may be anywhere.
        let up = "../".repeat(scratch.path().components().count() + 1);
        let path = |path: String| format!("{up}{}", project(&path).display());
        let of_components = components
            .iter()
            .map(|name| path(format!("deploy/components/{name}")));
        let kustomization = json!({
            "namespace": "tidings",
            "resources": [path(format!("deploy/overlays/{overlay}"))],
            "components": of_components.collect::<Vec<_>>(),
        });
        let folder = scratch.path().join(overlay);
        fs::create_dir(&folder).expect("a folder can be created");
        fs::write(folder.join("kustomization.yaml"), kustomization.to_string())
            .expect("a file can be written");

        restricted_namespace(&server, "tidings").await;
        for folder in [&project(&format!("deploy/overlays/{overlay}")), &folder] {
            let manifests = kustomize(folder).await;
            applies_cleanly(&server, &folder.display().to_string(), &manifests).await;
        }
        pods_are_admitted(&server, "tidings", workloads).await;
        server
            .kubectl(&[
                "delete",
                "deployments,statefulsets",
                "--all",
                "--namespace=tidings",
            ])
            .await
            .expect_success();
    }
}

#[tokio::test]
async fn the_api_server_accepts_the_chart_and_admits_its_pods() {
    let server = server().await;
    let edges = fs::read_dir(project("deploy/chart/ci")).expect("there are edge values");
    let mut cases: Vec<(String, Vec<String>)> = edges
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let stem = path.file_stem().expect("a file has a name");
            let name = format!("edge-{}", stem.display());
            (name, vec![format!("--values={}", path.display())])
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 4, "{cases:?}");
    let plain = [("single", 1), ("standard", 4)];
    for (mode, _) in plain {
        cases.push((mode.to_owned(), vec![format!("--set=mode={mode}")]));
    }
    for (name, flags) in &cases {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        restricted_namespace(&server, name).await;
        let manifests = chart(name, &[&flags[..], &["--no-hooks"]].concat()).await;
        applies_cleanly(&server, name, &manifests).await;
    }
    for (mode, workloads) in plain {
        pods_are_admitted(&server, mode, workloads).await;
        // Last, because it needs a service account of the release.
        let mode_flag = format!("--set=mode={mode}");
        let only_test = ["--show-only=templates/tests/test.yaml", &mode_flag];
        let test = chart(mode, &only_test).await;
        applies_cleanly(&server, &format!("the test pod of {mode}"), &test).await;
    }
}

#[tokio::test]
async fn the_service_of_notification_controller_can_lead_to_tidings() {
    let server = KubeApiServer::start().await;
    let meta = json!({"name": "notification-controller", "namespace": "flux-system"});
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "notification-controller"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
        },
    });
    restricted_namespace(&server, "flux-system").await;
    let as_flux = ["--field-manager=kustomize-controller"];
    apply(&server, &service.to_string(), &as_flux)
        .await
        .expect_success();

    restricted_namespace(&server, "tidings").await;
    let for_tee = kustomize(&project("deploy/migrate")).await;
    applies_cleanly(&server, "deploy/migrate", &for_tee).await;
    let ours = kustomize(&project("deploy/overlays/flux-service")).await;
    let forced = ["--force-conflicts"];
    apply(&server, &ours, &forced).await.expect_success();
    let get = [
        "get",
        "service/notification-controller",
        "--namespace=flux-system",
    ];
    let printed = server
        .kubectl(&[&get[..], &["--output=json"]].concat())
        .await;
    let stored: Value =
        serde_json::from_str(&printed.expect_success()).expect("kubectl prints JSON");
    let name = &stored["spec"]["externalName"];
    assert_eq!(name, "tidings.tidings.svc.cluster.local", "{stored}");
    assert!(stored["spec"]["clusterIP"].is_null(), "{stored}");
}
