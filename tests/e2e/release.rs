//! A release of the chart.

use serde_json::Value;
use tidings_rig::{Receiver, alert, eventually_within, provider};

use crate::cluster::{
    CHANGE, HOST, apply, get, kubectl, output_of, project, restricted_namespace, variable, volumes,
};

/// A release of the chart.
pub struct Release {
    /// The prefix of its objects. It contains `tidings`, so that the chart takes it as it is.
    pub name: &'static str,
    pub namespace: &'static str,
    pub mode: &'static str,
    pub workloads: &'static [&'static str],
}

impl Release {
    /// Installs a release `tidings` of a mode in a namespace of this name.
    pub async fn install(
        mode: &'static str,
        workloads: &'static [&'static str],
        flags: &[&str],
    ) -> Self {
        let release = Self {
            name: "tidings",
            namespace: mode,
            mode,
            workloads,
        };
        release.installed(flags).await
    }

    /// Installs it in a restricted namespace, and waits until it is ready.
    pub async fn installed<F: AsRef<str>>(self, flags: &[F]) -> Self {
        restricted_namespace(self.namespace).await;
        volumes(self.namespace, 3).await;
        let flags: Vec<&str> = flags.iter().map(AsRef::as_ref).collect();
        self.helm("install", &self.flags(&flags)).await;
        self.ready().await;
        println!("{}: installed", self.namespace);
        self
    }

    fn flags(&self, more: &[&str]) -> Vec<String> {
        let chart = project("deploy/chart").display().to_string();
        let mode = format!("--set=mode={}", self.mode);
        let fixed = [chart, mode, "--set=image.tag=test".to_owned()];
        let more = more.iter().map(|&flag| flag.to_owned());
        fixed.into_iter().chain(more).collect()
    }

    async fn helm(&self, command: &str, arguments: &[String]) {
        let fixed = [command, self.name, "--namespace", self.namespace];
        let more: Vec<&str> = arguments.iter().map(String::as_str).collect();
        output_of(&variable("HELM"), &[&fixed[..], &more].concat(), "").await;
    }

    /// Upgrades with these flags in addition, and waits until all pods are replaced.
    pub async fn upgrade(&self, flags: &[&str]) {
        self.helm("upgrade", &self.flags(flags)).await;
        self.ready().await;
    }

    /// Rolls back to a revision, and waits until all pods are replaced.
    pub async fn rollback(&self, revision: &str) {
        self.helm("rollback", &[revision.to_owned()]).await;
        self.ready().await;
    }

    /// Runs the tests of the chart.
    pub async fn test(&self) {
        self.helm("test", &[]).await;
    }

    /// Waits until all workloads have all pods ready, in their newest form.
    pub async fn ready(&self) {
        for workload in self.workloads {
            self.is_ready(workload).await;
        }
    }

    async fn is_ready(&self, workload: &str) {
        let timeout = format!("--timeout={}s", CHANGE.as_secs());
        let namespace = self.namespace();
        kubectl(&["rollout", "status", workload, &namespace, &timeout]).await;
    }

    /// Changes the number of workers, and waits for it.
    pub async fn scale_workers(&self, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        let worker = format!("deployment/{}-worker", self.name);
        kubectl(&["scale", &worker, &replicas, &self.namespace()]).await;
        self.is_ready(&worker).await;
    }

    /// Replaces all pods of a workload, and waits until they are ready.
    pub async fn restart(&self, workload: &str) {
        kubectl(&["rollout", "restart", workload, &self.namespace()]).await;
        self.is_ready(workload).await;
    }

    /// Deletes one pod of a component, and waits until all are ready again.
    pub async fn delete_pod(&self, component: &str) {
        let pod = self.pods(component).await.remove(0);
        kubectl(&["delete", "pod", &pod, &self.namespace()]).await;
        self.ready().await;
    }

    /// The running pods of a component.
    pub async fn pods(&self, component: &str) -> Vec<String> {
        let selector = format!("--selector=app.kubernetes.io/component={component}");
        let list = get(&["pods", &self.namespace(), &selector]).await;
        let pods = list["items"].as_array().expect("it is a list").iter();
        let runs = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
        pods.filter(runs).filter_map(name).collect()
    }

    /// The address that controllers post to: that of the Service.
    pub async fn address(&self) -> String {
        format!("http://{}/", self.service(self.name).await)
    }

    /// The address of a Service of the release.
    pub async fn service(&self, name: &str) -> String {
        let service = get(&["service", name, &self.namespace()]).await;
        let address = service["spec"]["clusterIP"].as_str();
        address.expect("the Service has an address").to_owned()
    }

    /// Starts a receiver on the host, and creates an Alert and a Provider for it.
    pub async fn receiver(&self) -> Receiver {
        let receiver = Receiver::start_at(HOST).await;
        let namespace = tidings_rig::NAMESPACE;
        restricted_namespace(namespace).await;
        let objects = [provider("hook", receiver.url()), alert("all", "hook")];
        apply(&objects.map(|object| object.in_namespace(namespace).value())).await;
        // A router has the Alert when it sets this condition. An event before that has no Alert.
        let condition = "--for=condition=Ready";
        let flag = format!("--namespace={namespace}");
        kubectl(&["wait", "alert/all", condition, &flag, "--timeout=60s"]).await;
        receiver
    }

    /// Deletes the rules of the cluster, uninstalls the release, and waits until its pods have
    /// ended.
    pub async fn uninstall(self) {
        let rules = format!("--namespace={}", tidings_rig::NAMESPACE);
        kubectl(&["delete", "alerts,providers", "--all", &rules]).await;
        self.helm("uninstall", &[]).await;
        kubectl(&["delete", "pvc", "--all", "--wait=false", &self.namespace()]).await;
        eventually_within(CHANGE, "all pods have ended", async || {
            let pods = get(&["pods", &self.namespace()]).await;
            pods["items"].as_array()?.is_empty().then_some(())
        })
        .await;
    }

    /// The namespace, as a flag.
    fn namespace(&self) -> String {
        format!("--namespace={}", self.namespace)
    }
}
