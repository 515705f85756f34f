//! The roles in `deploy/` grant exactly what the processes request.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tidings_rig::{
    AuditedRequest, KubeApiServer, Manifest, PATIENCE, Process, Receiver, Reply, Rig, Role, event,
    eventually, eventually_within,
};
use tidings_rules::testing;

use crate::TIDINGS;
use crate::bed::{FLUX_FINALIZER, without_namespace};

/// The namespace of the service accounts in `deploy/`.
const NAMESPACE: &str = "tidings";

/// The kinds of Flux whose labels are read: group, kind, plural.
const FLUX_KINDS: [(&str, &str, &str); 12] = [
    (
        "kustomize.toolkit.fluxcd.io",
        "Kustomization",
        "kustomizations",
    ),
    ("helm.toolkit.fluxcd.io", "HelmRelease", "helmreleases"),
    (
        "source.toolkit.fluxcd.io",
        "GitRepository",
        "gitrepositories",
    ),
    (
        "source.toolkit.fluxcd.io",
        "OCIRepository",
        "ocirepositories",
    ),
    (
        "source.toolkit.fluxcd.io",
        "HelmRepository",
        "helmrepositories",
    ),
    ("source.toolkit.fluxcd.io", "HelmChart", "helmcharts"),
    ("source.toolkit.fluxcd.io", "Bucket", "buckets"),
    (
        "source.toolkit.fluxcd.io",
        "ExternalArtifact",
        "externalartifacts",
    ),
    (
        "source.extensions.fluxcd.io",
        "ArtifactGenerator",
        "artifactgenerators",
    ),
    (
        "image.toolkit.fluxcd.io",
        "ImageRepository",
        "imagerepositories",
    ),
    ("image.toolkit.fluxcd.io", "ImagePolicy", "imagepolicies"),
    (
        "image.toolkit.fluxcd.io",
        "ImageUpdateAutomation",
        "imageupdateautomations",
    ),
];

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: String,
    verb: String,
    group: String,
    resource: String,
    /// The name of the only object; empty for all objects.
    name: String,
}

impl Right {
    fn covers(&self, request: &AuditedRequest) -> bool {
        let own = (&self.account, &self.verb, &self.group, &self.resource);
        let requested = (
            &request.account,
            &request.verb,
            &request.group,
            &request.resource,
        );
        own == requested && (self.name.is_empty() || self.name == request.name)
    }
}

/// All rights of the roles in `deploy/`.
async fn rights(server: &KubeApiServer) -> BTreeSet<Right> {
    let printed = server
        .kubectl(&[
            "get",
            "clusterroles,roles",
            "--namespace",
            NAMESPACE,
            "--output",
            "json",
        ])
        .await;
    let roles: Value =
        serde_json::from_str(&printed.expect_success()).expect("kubectl prints JSON");
    let mut rights = BTreeSet::new();
    for role in roles["items"].as_array().expect("there are roles") {
        let name = role["metadata"]["name"]
            .as_str()
            .expect("a role has a name");
        if name.starts_with("tidings-") {
            let rules = role["rules"].as_array().expect("a role has rules");
            rights.extend(
                rules
                    .iter()
                    .flat_map(|rule| rights_of(&format!("{NAMESPACE}:{name}"), rule)),
            );
        }
    }
    rights
}

fn rights_of(account: &str, rule: &Value) -> Vec<Right> {
    let words = |field: &str| -> Vec<String> {
        let words = rule[field].as_array().into_iter().flatten();
        words
            .map(|word| word.as_str().expect("rules contain strings").to_owned())
            .collect()
    };
    let names = if rule["resourceNames"].is_null() {
        vec![String::new()]
    } else {
        words("resourceNames")
    };
    let mut rights = Vec::new();
    for verb in words("verbs") {
        for group in words("apiGroups") {
            for resource in words("resources") {
                for name in &names {
                    let (verb, group, resource) = (verb.clone(), group.clone(), resource.clone());
                    rights.push(Right {
                        account: account.to_owned(),
                        verb,
                        group,
                        resource,
                        name: name.clone(),
                    });
                }
            }
        }
    }
    rights
}

/// CRDs of Flux's kinds, with an empty schema.
fn flux_crds() -> String {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"openAPIV3Schema": schema});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    let definition = |(group, kind, plural): (&str, &str, &str)| {
        let names = json!({"kind": kind, "plural": plural, "singular": kind.to_lowercase()});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [version]},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": FLUX_KINDS.map(definition)}).to_string()
}

/// Rules that need every right.
fn rules(address: &str) -> String {
    let labels = json!({"team": "web"});
    let sources: Vec<_> = FLUX_KINDS
        .iter()
        .map(|(_, kind, _)| {
            json!({"kind": kind, "name": "*", "namespace": "apps", "matchLabels": labels})
        })
        .chain([json!({"kind": "ConfigMap", "name": "*"})])
        .collect();
    let template = json!({"configMapKeyRef": {"name": "texts", "key": "text"}});
    let alert = |name: &str| {
        testing::alert(name, "p")
            .with("eventSources", sources.clone())
            .with("template", template.clone())
    };
    let provider =
        |name: &str| testing::provider(name, "generic").with("secretRef", json!({"name": "s"}));
    let leaving = |manifest: Manifest| manifest.set("/metadata/finalizers", vec![FLUX_FINALIZER]);
    let items = [
        testing::secret("s", json!({"address": address})),
        testing::config_map("texts", json!({"text": "hello"})),
        provider("p"),
        alert("a"),
        leaving(provider("leaving")),
        leaving(alert("leaving")),
    ]
    .map(without_namespace);
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Posts an event about an object of each of Flux's kinds. None of the objects exists.
async fn post_about_each_kind(ingest: &Process) {
    for (group, kind, _) in FLUX_KINDS {
        let mut event = event(&format!("about a {kind}"));
        event["involvedObject"]["apiVersion"] = format!("{group}/v1").into();
        event["involvedObject"]["kind"] = kind.into();
        assert_eq!(
            ingest.post(&event).await.expect("ingest responds").status,
            202
        );
    }
}

/// A Kubernetes Event about a ConfigMap of the namespace of the rules.
fn kubernetes_event(name: &str, namespace: &str) -> String {
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "eventTime": "2026-11-21T12:00:00.000000Z",
        "type": "Warning",
        "reason": "Broken",
        "action": "Look",
        "note": name,
        "reportingController": "example",
        "reportingInstance": "example-1",
        "regarding": {
            "apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "texts",
        },
    })
    .to_string()
}

#[tokio::test]
async fn the_api_server_accepts_the_manifests_in_deploy() {
    let server = KubeApiServer::shared().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    server
        .kubectl(&["create", "namespace", NAMESPACE])
        .await
        .expect_success();
    let dry_run = [
        "apply",
        "--dry-run=server",
        "--server-side",
        "--kustomize",
        &folder.display().to_string(),
    ];
    let output = server.kubectl(&dry_run).await;
    assert!(
        output.success && output.output.lines().count() == 17 && output.errors.is_empty(),
        "{output:?}"
    );
}

#[tokio::test]
async fn each_role_has_exactly_the_rights_that_it_uses() {
    let server = KubeApiServer::start_audited().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    server.install_crds().await;
    server
        .kubectl(&[
            "apply",
            "--server-side",
            "--kustomize",
            &folder.display().to_string(),
        ])
        .await
        .expect_success();
    let namespace = server.namespace().await;
    server.apply(&namespace, &flux_crds()).await;
    let broken = Receiver::start().await;
    broken.answer_with(Reply::Status(400));
    server.apply(&namespace, &rules(broken.url())).await;
    server
        .kubectl(&[
            "delete",
            "alert/leaving",
            "provider/leaving",
            "--wait=false",
            "--namespace",
            &namespace,
        ])
        .await
        .expect_success();

    let rig = Rig::start(TIDINGS).await;
    let run = async |role: Role, name: &str| {
        let kubeconfig = server.kubeconfig_for(NAMESPACE, name).await;
        rig.run(
            role.in_cluster(&kubeconfig)
                .env("TIDINGS_KUBERNETES__NAMESPACE", NAMESPACE),
        )
        .await
    };
    let router = run(Role::router(), "tidings-router").await;
    let ingest = run(Role::ingest().args(["--watch-events"]), "tidings-ingest").await;
    let worker = run(Role::worker(), "tidings-worker").await;
    post_about_each_kind(&ingest).await;
    for name in ["first", "second"] {
        // One after the other, so that the second one increments the count of the first.
        server
            .apply(&namespace, &kubernetes_event(name, &namespace))
            .await;
        eventually(&format!("the {name} delivery is dead"), async || {
            rig.dead_letters()
                .await
                .iter()
                .filter_map(|dead| dead.delivery.as_ref()?.event.as_ref())
                .any(|event| event.message == name)
                .then_some(())
        })
        .await;
    }

    // The count of an Event is written once a minute, after everything else.
    let counts = |request: &AuditedRequest| request.verb == "patch" && request.resource == "events";
    eventually_within(PATIENCE * 4, "the second failure is counted", async || {
        server.audited_requests().iter().any(counts).then_some(())
    })
    .await;
    let requests = server.audited_requests();
    let denied: BTreeSet<_> = requests
        .iter()
        .filter(|request| !request.is_allowed)
        .collect();
    assert!(denied.is_empty(), "denied: {denied:#?}");
    let rights = rights(&server).await;
    let unused: Vec<_> = rights
        .iter()
        .filter(|right| !requests.iter().any(|request| right.covers(request)))
        .collect();
    assert!(
        rights.len() > 50 && unused.is_empty(),
        "unused: {unused:#?}"
    );
    for process in [&router, &ingest, &worker] {
        assert!(
            !process.log().iter().any(|line| line.contains("forbidden")),
            "{:?}",
            process.log()
        );
    }
}
